"""The source of prompts: a JSONL or Parquet file, read once, checked line by line, and dealt out by place.

prompts = read(config.prompts, seed)    prompts[place]: every prompt once per epoch, each epoch in its own order
asked = questions(path)                 prompts with an answer, for anchors, keys and the report only
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from core.answers import extractor
from core.chats import plain_chat
from core.codec import stable_id
from core.config import PromptsConfig, SplitByHash, TextAnswer
from core.errors import ConfigError, PromptError
from core.messages import ChatMessage, Origin, Prompt
from core.messages.versions import Question
from core.protocols import Extract
from methods.data.files import rows
from methods.data.probes import Probes
from methods.data.text import asked_text, together

AS_TEXT = extractor(TextAnswer())
SLICE = "slice"
"""The column that names the kind of a question."""
FEW = 5
"""Fewer questions may happen to have the same answer."""


class Prompts:
    """All prompts of a run. A place is any number from 0; a place beyond the length is in a later epoch.

    Raises: ConfigError if there is no prompt."""

    def __init__(
        self,
        prompts: Iterable[Prompt],
        seed: int = 0,
        reports: Sequence[str] = (),
        duplicates: int = 0,
        near_probes: int = 0,
    ) -> None:
        # strings, because 100,000 prompts take about 30 MB as strings and several times that as messages
        self._contents: list[tuple[tuple[Any, str], ...]] = []
        for prompt in prompts:
            self._contents.append(tuple((message.role, message.content) for message in prompt.messages))
        self._seed = seed
        self._order = lru_cache(maxsize=4)(_order)
        self.reports = tuple(reports)
        """One message per skipped line."""
        self.duplicates = duplicates
        """Number of lines that repeat an earlier one."""
        self.near_probes = near_probes
        """Number of lines left out because they duplicate a probe, or nearly."""
        if not self._contents:
            raise ConfigError("there is no prompt to learn from; give prompts.path a file that holds at least one")

    def __len__(self) -> int:
        return len(self._contents)

    def __iter__(self) -> Iterator[Prompt]:
        """Each prompt once, in the order of the file."""
        return (_prompt(content, "dataset") for content in self._contents)

    def __getitem__(self, place: int) -> Prompt:
        if place < 0:
            raise IndexError(f"place {place} is before the first prompt; places count from 0")
        epoch, index = divmod(place, len(self))
        return _prompt(self._contents[self._order(self._seed, epoch, len(self))[index]], "dataset")


def read(config: PromptsConfig, seed: int = 0, probes: Probes | None = None, setting: str = "prompts.path") -> Prompts:
    """All prompts of the file, except those that `probes` holds. `setting` names the file in errors.

    Raises: ConfigError that names file and line, if the file cannot be read, a line is invalid and `on_invalid` is
    `refuse`, or a text is outside the buckets of `split`."""
    found: dict[str, Prompt] = {}
    reports: list[str] = []
    duplicates = near_probes = 0
    for where, fields in rows(Path(config.path), (config.column,), setting, reports):
        try:
            prompt = as_prompt(_field(fields, config.column), system=config.system)
        except PromptError as error:
            reports.append(f"{where}: {error}")
            continue
        _check_split(config.split, prompt, where, f"{setting.split('.')[0]}.split")
        if probes is not None and probes.holds(prompt):
            near_probes += 1
            continue
        duplicates += prompt.id in found
        found.setdefault(prompt.id, prompt)
        if len(found) == config.limit:
            break
    if reports and config.on_invalid == "refuse":
        headline = f"{len(reports)} invalid lines; correct them, or set prompts.on_invalid=skip"
        raise ConfigError(together(headline, reports))
    if not found:
        left_out = f" ({near_probes} duplicate a question of the gate or the report)" if near_probes else ""
        raise ConfigError(together(f"{config.path} holds no valid prompt{left_out}", reports))
    return Prompts(found.values(), seed, reports, duplicates, near_probes)


def questions(
    path: str | Path,
    prompt_column: str = "prompt",
    answer_column: str = "answer",
    *,
    extract: Extract = AS_TEXT,
    system: str | None = None,
    split: SplitByHash | None = None,
) -> list[Question]:
    """Prompts with their answers as `extract` reads them, each prompt once; with the slice that the column SLICE names,
    if the file has one.

    Raises: ConfigError that names file and line of every invalid pair, of an answer that cannot be read, and of a
    question with two answers; or that tells that the file cannot measure anything."""
    found: dict[str, Question] = {}
    reports: list[str] = []
    lines = 0
    columns = prompt_column, answer_column
    for where, fields in rows(Path(path), columns, "a file of questions", reports, optional=(SLICE,)):
        lines += 1
        try:
            prompt = as_prompt(_field(fields, prompt_column), system=system)
            answer = _answer(_field(fields, answer_column), extract)
            kind = _slice(fields)
        except PromptError as error:
            reports.append(f"{where}: {error}")
            continue
        _check_split(split, prompt, where, "split")
        earlier = found.setdefault(prompt.id, Question(prompt, answer, kind)).answer
        if earlier != answer:
            reports.append(f"{where}: the answer {answer!r}, but an earlier line answers the same question {earlier!r}")
    if reports:
        raise ConfigError(
            together(f"{len(reports)} of {lines} lines of {path} are invalid; correct or remove them", reports)
        )
    if not found:
        raise ConfigError(f"{path} holds no question")
    _check_measures(path, list(found.values()), lines)
    return list(found.values())


def slices(path: str | Path, column: str = "prompt", system: str | None = None) -> dict[str, str]:
    """Prompt id -> slice, of the valid prompts of a file that have one."""
    found: dict[str, str] = {}
    for _, fields in rows(Path(path), (column,), "a file of prompts", [], optional=(SLICE,)):
        with suppress(PromptError):
            if kind := _slice(fields):
                found[as_prompt(_field(fields, column), system=system).id] = kind
    return found


def _slice(fields: dict[str, Any]) -> str:
    value = fields.get(SLICE)
    if value is not None and not isinstance(value, str):
        raise PromptError(f"a slice is a name, not {value!r}")
    return (value or "").strip()


def _check_measures(path: str | Path, found: Sequence[Question], lines: int) -> None:
    """Refuse questions that tell no version from another."""
    answers = {question.answer for question in found}
    if len(found) == 1 and lines >= FEW:
        raise ConfigError(f"all {lines} lines of {path} ask the same question; check the column `prompt`")
    if len(answers) == 1 and len(found) >= FEW:
        raise ConfigError(
            f"all {len(found)} questions of {path} have the answer {found[0].answer!r}: a model that always says so "
            "hits every one; check the column `answer`"
        )


def as_prompt(content: object, *, system: str | None = None, origin: Origin = "dataset") -> Prompt:
    """A Prompt from a text, or from a list of chat messages that ends with the user's; its id is a digest of it.

    Raises: PromptError for anything else."""
    match content:
        case str():
            messages: list[Any] = [{"role": "user", "content": content}]
        case list() | tuple():
            messages = list(cast(Sequence[Any], content))
        case _:
            raise PromptError(f"a prompt is a text or a list of chat messages, not {content!r}")
    try:
        chat = [ChatMessage.model_validate(message) for message in plain_chat(messages)]
    except ValidationError as error:
        detail = error.errors()[0]
        raise PromptError(f"not a chat message: {'.'.join(map(str, detail['loc']))} {detail['msg']}") from None
    if not chat or chat[-1].role != "user" or not chat[-1].content.strip():
        raise PromptError("a prompt must end with a message of the user that is not empty")
    if system is not None:
        chat.insert(0, ChatMessage(role="system", content=system))
    try:
        return _prompt(tuple((message.role, message.content) for message in chat), origin)
    except UnicodeEncodeError as error:
        raise PromptError(f"a text that is not valid Unicode: {error}") from None


def _prompt(content: tuple[tuple[Any, str], ...], origin: Origin) -> Prompt:
    messages = tuple(ChatMessage(role=role, content=text) for role, text in content)
    digest = stable_id("prompt", *(part for pair in content for part in pair))
    return Prompt(id=digest, messages=messages, origin=origin)


def _field(fields: dict[str, Any], column: str) -> object:
    if column not in fields:
        raise PromptError(f"no field {column!r} (there are: {', '.join(map(repr, fields)) or 'none'})")
    return fields[column]


def _answer(value: object, extract: Extract) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) or not str(value).strip():
        raise PromptError(f"an answer is a text or a number, not {value!r}")
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    answer = extract(text, stated=True) if text.strip().casefold() != "nan" else None
    if answer is None or (isinstance(value, float | Decimal) and not math.isfinite(value)):
        raise PromptError(
            f"no answer can be read from {text[:80]!r}; write it as method.answer reads it, or choose another "
            "method.answer.kind"
        )
    return answer


def _check_split(split: SplitByHash | None, prompt: Prompt, where: str, name: str) -> None:
    if split is None:
        return
    bucket = int(hashlib.sha1(asked_text(prompt).encode()).hexdigest(), 16) % split.buckets
    if bucket not in split.allowed:
        raise ConfigError(
            f"{where} is in bucket {bucket} of {split.buckets}, but {name} allows only {list(split.allowed)}: this "
            f"question belongs to another split; check the path of the file"
        )


def _order(seed: int, epoch: int, length: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(length).tolist()
