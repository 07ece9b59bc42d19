"""Exports votes and samples in TRL's conversational formats, as JSONL or Parquet by the file's suffix.

    sft    prompt, completion           samples with the winning answer of their group's vote
    kto    prompt, completion, label    responses that people liked or disliked
    dpo    prompt, chosen, rejected     pairs that people made; corrections with the response that they correct

Source of the formats: https://huggingface.co/docs/trl/dataset_formats.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import make_room_for
from core.errors import ConfigError
from core.messages import Feedback, Prompt, Response
from core.store.writer import RunReader

TrlRow = dict[str, object]


def export(reader: RunReader, kind: str, path: Path) -> int:
    """Write all rows of a kind, also into a new folder; returns their number. Raises: ConfigError for an unknown kind
    or file suffix; ArtifactError for a file that cannot be written."""
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of data {kind!r}; expected one of {', '.join(KINDS)}")
    if path.suffix not in (".jsonl", ".parquet"):
        raise ConfigError(f"{path} ends with {path.suffix or 'nothing'}; expected .jsonl or .parquet")
    make_room_for(path)
    rows = KINDS[kind](reader)
    if path.suffix == ".jsonl":
        return _write_jsonl(rows, path)
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, path)
    return table.num_rows


def sft(reader: RunReader) -> Iterator[TrlRow]:
    for outcome in reader.outcomes():
        for scored in outcome.scored:
            verdict, learned = scored.verdict, {e.group_id for e in outcome.examples if e.by == "sample"}
            for candidate, answer in zip(scored.group.candidates, verdict.answers, strict=True):
                if scored.group.id in learned and answer is not None and answer == verdict.winner:
                    yield {**_prompt(scored.group.prompt), "completion": _said(candidate.text)}


def kto(reader: RunReader) -> Iterator[TrlRow]:
    for feedback, response, prompt in _feedback(reader):
        if feedback.binary is not None:
            said = _said(response.texts[feedback.choice])
            yield {**_prompt(prompt), "completion": said, "label": feedback.binary}


def dpo(reader: RunReader) -> Iterator[TrlRow]:
    for feedback, response, prompt in _feedback(reader):
        mine = response.texts[feedback.choice]
        if feedback.correction is not None and feedback.correction != mine:
            yield {**_prompt(prompt), "chosen": _said(feedback.correction), "rejected": _said(mine)}
        elif feedback.better_than is not None:
            id, choice = feedback.better_than
            other = reader.get("responses", Response, id)
            if other is not None and other.prompt == prompt:
                yield {**_prompt(prompt), "chosen": _said(mine), "rejected": _said(other.texts[choice])}


KINDS: dict[str, Callable[[RunReader], Iterator[TrlRow]]] = {"sft": sft, "kto": kto, "dpo": dpo}


def _feedback(reader: RunReader) -> Iterator[tuple[Feedback, Response, Prompt]]:
    """Feedback on chats, with its response and prompt. Skips feedback whose response was deleted."""
    for feedback in reader.all("feedback", Feedback):
        response = reader.get("responses", Response, feedback.response_id)
        if response is not None and response.prompt is not None:
            yield feedback, response, response.prompt


def _prompt(prompt: Prompt) -> TrlRow:
    return {"prompt": [{"role": message.role, "content": message.content} for message in prompt.messages]}


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _write_jsonl(rows: Iterator[TrlRow], path: Path) -> int:
    written = 0
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written
