"""Makes the gate's anchors: held-out questions with the base model's majority answers, which need no answer key.

The command `anchors` makes them with an engine of its own, and a run that lacks them with its own replicas.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from actors.runtime.statuses import AnchorsStatus
from core.answers import extractor
from core.artifacts import digest_file, make_room_for, sync
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


class Anchoring:
    """The making of one file of anchors. Reads no answer key. Every answer is kept in the file `unfinished` at once, so
    that what was interrupted is continued. Call `ask` until it returns, then `write`.

    Raises: ConfigError, before anything is asked, for a target that cannot be written or unfinished answers of another
    model."""

    def __init__(
        self,
        questions: PromptsConfig,
        config: Config,
        to: Path,
        samples: int,
        min_share: float,
        unfinished: Path | None = None,
        anew: bool = False,
    ) -> None:
        """`samples`: of the base, a question. `min_share`: of the majority, of a question that is kept. `unfinished`:
        None for `TO.unfinished`. `anew`: begin again if its answers are of another model or other settings."""
        self._to, self._min_share = to, min_share
        self._system = questions.system
        self._unfinished = writable(to, unfinished or to.with_name(f"{to.name}.unfinished"))
        self._pool = list(prompts.read(questions, config.run.seed, setting="the held-out questions"))
        self._slices = prompts.slices(questions.path, questions.column, questions.system)
        sampler = config.method.sampler
        self._sampling = Sampling(
            n=samples, temperature=sampler.temperature, max_tokens=sampler.max_tokens, purpose="gate"
        )
        self._extract = extractor(config.method.answer)
        self._seats = max(1, 2 * config.serve.engine.max_seqs // samples)
        weights = Path(config.model.path) / "model.safetensors"
        self._digest = digest_file(weights) if weights.is_file() else ""
        rules = stable_id(
            "anchors",
            config.model.path,
            self._digest,
            self._sampling.model_dump_json(exclude={"purpose"}),
            config.method.answer.model_dump_json(),
        )
        self._known = _continued(self._unfinished, rules, anew)
        self._asked_at, self._known_before = 0.0, 0

    @property
    def left(self) -> list[Prompt]:
        """The questions that are not answered yet."""
        return [prompt for prompt in self._pool if prompt.id not in self._known]

    def status(self) -> AnchorsStatus:
        left = len(self.left)
        answered = len(self._pool) - left
        pace = (answered - self._known_before) / max(1e-3, time.monotonic() - self._asked_at)
        return {"answered": answered, "questions": len(self._pool), "left_s": left / pace if pace > 0 else None}

    async def ask(self, policy: Policy, shown: Callable[[str], object] = lambda line: None) -> None:
        """Ask the base all questions that are left; `shown` gets a line after each. Raises: the policy's error."""
        self._asked_at, self._known_before = time.monotonic(), len(self._pool) - len(self.left)
        with self._unfinished.open("a") as file:

            def keep(asked: Asked) -> None:
                self._known[asked.id] = asked
                file.write(json.dumps(asked) + "\n")
                file.flush()
                shown(f"{len(self._known)} of {len(self._pool)} questions answered")

            await ask_all(policy, self.left, self._sampling, self._extract, self._seats, keep)

    def write(self) -> Made:
        """Write the anchors. Raises: ConfigError if no question reaches the share, or those that do measure nothing."""
        table, made = _table(self._pool, self._known, self._slices, self._min_share, self._system is not None)
        aside = self._to.with_name(f".{self._to.name}")
        pq.write_table(table.replace_schema_metadata({"model_sha256": self._digest}), aside)
        try:
            prompts.questions(aside, extract=self._extract, system=self._system)
        except ConfigError:
            aside.unlink()
            raise
        sync(aside)
        os.replace(aside, self._to)
        sync(self._to.parent)
        self._unfinished.unlink()
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


def writable(to: Path, unfinished: Path) -> Path:
    """Make the target's folder and the file for unfinished work. Raises: ConfigError; ArtifactError."""
    if to.suffix != ".parquet":  # only Parquet names the model that answered
        raise ConfigError(f"{to} ends in {to.suffix or 'nothing'!r}, expected .parquet; choose such a name")
    make_room_for(to)
    make_room_for(unfinished)
    unfinished.touch()
    return unfinished


def _continued(unfinished: Path, rules: str, anew: bool) -> dict[str, Asked]:
    """The outcomes of an interrupted call by prompt id; those of questions that are skipped are asked again. Raises:
    ConfigError if that call had another model or other settings."""
    lines = unfinished.read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]  # a crash may cut the last line
    if whole and whole[0] != rules and anew:
        whole = []
    if whole and whole[0] != rules:
        raise ConfigError(
            f"{unfinished} has answers of another model or other settings; use those again, or remove the file"
        )
    kept = [Asked(*fields) for fields in whole[1:]]
    with unfinished.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in (rules, *kept))
    return {asked.id: asked for asked in kept}


def _table(
    pool: Sequence[Prompt], known: dict[str, Asked], slices: dict[str, str], min_share: float, system: bool
) -> tuple[pa.Table, Made]:
    """Raises: ConfigError if no question reaches the share."""
    outcomes = [(prompt, known[prompt.id]) for prompt in pool]
    skipped = [f"{prompts.asked_text(prompt)[:60]!r}: {asked.skipped}" for prompt, asked in outcomes if asked.skipped]
    kept = [(prompt, asked) for prompt, asked in outcomes if asked.answer is not None and asked.share >= min_share]
    if not kept:
        why = f"; {len(skipped)} were skipped, first {skipped[0]}" if skipped else ""
        raise ConfigError(
            f"the base model reaches a share of {min_share} on none of {len(pool)} questions{why}; lower it "
            "(gate.anchor_share, or --min-share)"
        )
    chats = [list(_chat(prompt, system)) for prompt, _ in kept]
    alone = all(len(chat) == 1 for chat in chats)
    columns = {
        "prompt": [chat[0]["content"] for chat in chats] if alone else chats,  # a column has one type
        "answer": [asked.answer for _, asked in kept],
        "share": [asked.share for _, asked in kept],
    }
    if slices:
        columns[prompts.SLICE] = [slices.get(prompt.id) for prompt, _ in kept]
    return pa.table(columns), Made(len(pool), len(kept), skipped)


def _chat(prompt: Prompt, system: bool) -> Iterator[dict[str, Any]]:
    """All messages, without the system prompt that `prompts.system` adds again when the anchors are read."""
    for message in prompt.messages[1 if system else 0 :]:
        yield {"role": message.role, "content": message.content}
