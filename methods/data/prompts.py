"""Where prompts come from: a JSONL or Parquet file read once, checked line by line, and dealt out by place.

prompts = read(config.prompts, seed)      prompts[place]: every prompt once an epoch, each epoch in its own order;
                                          with `shards`, the prompts of each at the places of each
pairs = questions(path)                   prompts with an answer, for anchors, keys and the report only
Probes(questions).holds(prompt)           what is asked at the gate, or nearly so, never enters training
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from core.answers import same
from core.codec import stable_id
from core.config import PromptsConfig, SplitByHash
from core.errors import ConfigError, PromptError
from core.messages import ChatMessage, Origin, Prompt
from methods.data.files import rows
from methods.data.probes import Probes
from methods.data.text import asked_text, together


class Prompts:
    """All prompts of a run. A place is any number from 0; a place beyond the length lies in a later epoch.

    Raises: ConfigError when there is none."""

    def __init__(
        self,
        prompts: Iterable[Prompt],
        seed: int = 0,
        reports: Sequence[str] = (),
        duplicates: int = 0,
        near_probes: int = 0,
    ) -> None:
        # compact: 100,000 prompts as strings are some 30 MB, as messages several times that
        self._contents: list[tuple[tuple[Any, str], ...]] = []
        for prompt in prompts:
            self._contents.append(tuple((message.role, message.content) for message in prompt.messages))
        self._seed = seed
        self._order = lru_cache(maxsize=4)(_order)
        self.reports = tuple(reports)
        """What was wrong with each line that was skipped."""
        self.duplicates = duplicates
        """Lines that said the same as an earlier one."""
        self.near_probes = near_probes
        """Lines left out because they nearly ask what a probe asks."""
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


def read(config: PromptsConfig, seed: int = 0, probes: Probes | None = None) -> Prompts:
    """All of the file but what `probes` holds.

    Raises: ConfigError that names file and line when the file cannot be read, a line is no prompt and
    `on_invalid` is `refuse`, or a text breaks the promise of `split`."""
    found: dict[str, Prompt] = {}
    reports: list[str] = []
    duplicates = near_probes = 0
    for where, fields in rows(Path(config.path), (config.column,), "prompts.path", reports):
        try:
            prompt = as_prompt(_field(fields, config.column), system=config.system)
        except PromptError as error:
            reports.append(f"{where}: {error}")
            continue
        _keep_promise(config.split, prompt, where, "prompts.split")
        if probes is not None and probes.holds(prompt):
            near_probes += 1
            continue
        duplicates += prompt.id in found
        found.setdefault(prompt.id, prompt)
        if len(found) == config.limit:
            break
    if reports and config.on_invalid == "refuse":
        headline = f"{len(reports)} invalid lines; mend them, or set prompts.on_invalid=skip"
        raise ConfigError(together(headline, reports))
    if not found:
        left_out = f" ({near_probes} ask what the gate or the report asks)" if near_probes else ""
        raise ConfigError(together(f"{config.path} holds no valid prompt{left_out}", reports))
    return Prompts(found.values(), seed, reports, duplicates, near_probes)


def questions(
    path: str | Path,
    prompt_column: str = "prompt",
    answer_column: str = "answer",
    *,
    system: str | None = None,
    split: SplitByHash | None = None,
) -> list[tuple[Prompt, str]]:
    """Prompts with their answers, each prompt once. Raises: ConfigError that names file and line for anything that is
    no such pair, and for a question that stands twice with two answers."""
    found: dict[str, tuple[Prompt, str]] = {}
    reports: list[str] = []
    for where, fields in rows(Path(path), (prompt_column, answer_column), "a file of questions", reports):
        try:
            prompt = as_prompt(_field(fields, prompt_column), system=system)
            answer = _answer(_field(fields, answer_column))
        except PromptError as error:
            reports.append(f"{where}: {error}")
            continue
        _keep_promise(split, prompt, where, "split")
        earlier = found.setdefault(prompt.id, (prompt, answer))[1]
        if not same(earlier, answer):
            reports.append(f"{where}: the answer {answer!r}, but an earlier line answers the same question {earlier!r}")
    if reports:
        raise ConfigError(together(f"{len(reports)} invalid lines; mend or remove them", reports))
    if not found:
        raise ConfigError(f"{path} holds no question")
    return list(found.values())


def as_prompt(content: object, *, system: str | None = None, origin: Origin = "dataset") -> Prompt:
    """A text, or a list of chat messages that ends with the user's, as a Prompt whose id is the digest of its content.

    Raises: PromptError."""
    match content:
        case str():
            messages: list[Any] = [{"role": "user", "content": content}]
        case list() | tuple():
            messages = list(cast(Sequence[Any], content))
        case _:
            raise PromptError(f"a prompt is a text or a list of chat messages, not {content!r}")
    try:
        chat = [ChatMessage.model_validate(message) for message in messages]
    except ValidationError as error:
        detail = error.errors()[0]
        raise PromptError(f"no chat message: {'.'.join(map(str, detail['loc']))} {detail['msg']}") from None
    if not chat or chat[-1].role != "user" or not chat[-1].content.strip():
        raise PromptError("a prompt ends with a message of the user that is not empty")
    if system is not None:
        chat.insert(0, ChatMessage(role="system", content=system))
    try:
        return _prompt(tuple((message.role, message.content) for message in chat), origin)
    except UnicodeEncodeError as error:
        raise PromptError(f"a text that is no valid Unicode: {error}") from None


# --- one line ------------------------------------------------------------------------------------------------------


def _prompt(content: tuple[tuple[Any, str], ...], origin: Origin) -> Prompt:
    messages = tuple(ChatMessage(role=role, content=text) for role, text in content)
    digest = stable_id("prompt", *(part for pair in content for part in pair))
    return Prompt(id=digest, messages=messages, origin=origin)


def _field(fields: dict[str, Any], column: str) -> object:
    if column not in fields:
        raise PromptError(f"no field {column!r} (there are: {', '.join(map(repr, fields)) or 'none'})")
    return fields[column]


def _answer(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise PromptError(f"an answer is a text or a number, not {value!r}")
    return str(value).strip()


def _keep_promise(split: SplitByHash | None, prompt: Prompt, where: str, name: str) -> None:
    if split is None:
        return
    bucket = int(hashlib.sha1(asked_text(prompt).encode()).hexdigest(), 16) % split.buckets
    if bucket not in split.allowed:
        raise ConfigError(
            f"{where} lies in bucket {bucket} of {split.buckets}, {name} promises {list(split.allowed)}: this question "
            f"belongs to another split; is it the right file?"
        )


def _order(seed: int, epoch: int, length: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(length).tolist()


# --- one file ------------------------------------------------------------------------------------------------------
