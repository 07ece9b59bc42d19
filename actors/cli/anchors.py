"""Makes the gate's anchors: held-out questions with the base model's majority answers, which need no answer key."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from actors.cli.offline import offline_policy
from core.answers import extractor
from core.artifacts import digest_file, make_room_for
from core.codec import stable_id
from core.config import Config, PromptsConfig
from core.errors import ConfigError, PromptError
from core.messages import BASE, Prompt, Sampling
from core.protocols import Policy
from methods.data import prompts


class Asked(NamedTuple):
    """One question's outcome, as a line of the unfinished file."""

    id: str
    answer: str | None
    """The majority answer; None if no sample had one."""
    share: float
    skipped: str | None
    """Why the model could not be asked."""


class Made(NamedTuple):
    questions: int
    anchors: int
    skipped: list[str]
    """One line a question that the model could not be asked."""


def make_anchors(
    questions: PromptsConfig,
    config: Config,
    to: Path,
    samples: int,
    min_share: float,
    shown: Callable[[str], object] = lambda line: None,
    opened: Callable[[Config], AbstractAsyncContextManager[tuple[object, Policy]]] = offline_policy,
) -> Made:
    """Write held-out questions with the base model's majority answers, for the gate. Reads no answer key. Every answer
    is kept in `TO.unfinished` at once, so that an interrupted call is continued by the same call. `opened`: an
    engine with a policy over it; it is not opened when all answers are known.

    Raises: ConfigError, before the engine starts, for a target that cannot be written; or if no question reaches the
    share."""
    unfinished = writable(to)
    pool = list(prompts.read(questions, config.run.seed))
    sampling = Sampling(
        n=samples, temperature=config.method.sampler.temperature, max_tokens=config.method.sampler.max_tokens
    )
    weights = Path(config.model.path) / "model.safetensors"
    digest = digest_file(weights) if weights.is_file() else ""
    rules = stable_id(
        "anchors", config.model.path, digest, sampling.model_dump_json(), config.method.answer.model_dump_json()
    )
    known = _continued(unfinished, rules)
    left = [prompt for prompt in pool if prompt.id not in known]
    if left:
        seats = max(1, 2 * config.serve.engine.max_seqs // samples)

        async def run() -> None:
            async with opened(config) as (_, policy):
                await ask_all(policy, left, sampling, extractor(config.method.answer), seats, keep)

        with unfinished.open("a") as file:

            def keep(asked: Asked) -> None:
                known[asked.id] = asked
                file.write(json.dumps(asked) + "\n")
                file.flush()
                shown(f"{len(known)} of {len(pool)} questions answered")

            asyncio.run(run())
    made = _write(pool, known, min_share, questions.system is not None, digest, to)
    unfinished.unlink()
    return made


async def ask_all(
    policy: Policy,
    pool: Sequence[Prompt],
    sampling: Sampling,
    extract: Callable[[str], object],
    seats: int,
    keep: Callable[[Asked], None],
) -> None:
    """Give `keep` the majority answer to each question as soon as it is known. A question that the model cannot be
    asked is skipped. Raises: the policy's error."""
    free = asyncio.Semaphore(seats)

    async def ask(prompt: Prompt) -> None:
        async with free:
            try:
                candidates = await policy.generate(prompt, sampling, BASE)
            except PromptError as error:
                return keep(Asked(prompt.id, None, 0.0, str(error)))
        answers = Counter(extract(candidate.text) for candidate in candidates if candidate.finish == "stop")
        answers.pop(None, None)
        ((winner, votes),) = answers.most_common(1) or [(None, 0)]
        keep(Asked(prompt.id, None if winner is None else str(winner), votes / sampling.n, None))

    tasks = [asyncio.ensure_future(ask(prompt)) for prompt in pool]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def writable(to: Path) -> Path:
    """Make the target's folder; returns the file for unfinished work beside it. Raises: ConfigError; ArtifactError."""
    if to.suffix != ".parquet":  # only Parquet names the model that answered
        raise ConfigError(f"--to {to} ends in {to.suffix or 'nothing'!r}, expected .parquet; choose such a name")
    make_room_for(to)
    unfinished = to.with_name(f"{to.name}.unfinished")
    make_room_for(unfinished)
    unfinished.touch()
    return unfinished


def _continued(unfinished: Path, rules: str) -> dict[str, Asked]:
    """The outcomes of an interrupted call by prompt id; those of questions that are skipped are asked again. Raises:
    ConfigError if that call had another model or other settings."""
    lines = unfinished.read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]  # a crash may cut the last line
    if whole and whole[0] != rules:
        raise ConfigError(
            f"{unfinished} has answers of another model or other settings; use those again, or remove the file"
        )
    kept = [Asked(*fields) for fields in whole[1:]]
    with unfinished.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in (rules, *kept))
    return {asked.id: asked for asked in kept}


def _write(
    pool: Sequence[Prompt], known: dict[str, Asked], min_share: float, system: bool, digest: str, to: Path
) -> Made:
    """Raises: ConfigError if no question reaches the share."""
    outcomes = [(prompt, known[prompt.id]) for prompt in pool]
    skipped = [f"{prompts.asked_text(prompt)[:60]!r}: {asked.skipped}" for prompt, asked in outcomes if asked.skipped]
    kept = [(prompt, asked) for prompt, asked in outcomes if asked.answer is not None and asked.share >= min_share]
    if not kept:
        why = f"; {len(skipped)} were skipped, first {skipped[0]}" if skipped else ""
        raise ConfigError(
            f"the base model reaches a share of {min_share} on none of {len(pool)} questions{why}; lower --min-share"
        )
    chats = [list(_chat(prompt, system)) for prompt, _ in kept]
    alone = all(len(chat) == 1 for chat in chats)
    columns = {
        "prompt": [chat[0]["content"] for chat in chats] if alone else chats,  # a column has one type
        "answer": [asked.answer for _, asked in kept],
        "share": [asked.share for _, asked in kept],
    }
    aside = to.with_name(f".{to.name}")
    pq.write_table(pa.table(columns).replace_schema_metadata({"model_sha256": digest}), aside)
    os.replace(aside, to)
    return Made(len(pool), len(kept), skipped)


def _chat(prompt: Prompt, system: bool) -> Iterator[dict[str, Any]]:
    """All messages, without the system prompt that `prompts.system` adds again when the anchors are read."""
    for message in prompt.messages[1 if system else 0 :]:
        yield {"role": message.role, "content": message.content}
