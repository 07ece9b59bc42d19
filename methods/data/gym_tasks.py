"""Tasks of `prompts.kind: reasoning-gym`: a data set of the library of that name, whose answers one text settles."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import islice
from typing import Any

from core.answers import extractor
from core.config import AnswerConfig, NumberAnswer, PatternAnswer
from core.errors import ConfigError
from methods.data.task_items import Item, Task
from methods.data.text import nearest, words_of

PACKAGE = "reasoning-gym"
PINNED = f"{PACKAGE}==0.1.25"
SIZE = 4000
SHOTS = 2
SEED = 0
TRIES = 8
"""Batches of questions that are made, where many repeat an earlier one."""
THINKING_TOKENS = 128
ONE_RIGHT = frozenset(
    [
        "calendar_arithmetic",
        "chain_sum",
        "circuit_logic",
        "color_cube_rotation",
        "decimal_chain_sum",
        "family_relationships",
        "game_of_life_halting",
        "gsm_symbolic",
        "needle_haystack",
        "number_format",
        "number_sorting",
        "products",
        "self_reference",
        "spell_backward",
        "string_insertion",
        "word_sorting",
        "zebra_puzzles",
    ]
)
"""Data sets with a verifier of their own that still have one right answer, up to its spelling. The others with one may
accept several answers (a route, a colouring, a formula), which the report's comparison would call wrong."""
STATED = PatternAnswer(pattern=r"(?is)\banswer is:?\s*(.+?)\.?\s*$")


def version() -> str:
    """Raises: ConfigError if the library is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"prompts.kind={PACKAGE} needs the package {PACKAGE}; install it: {sys.executable} -m pip install "
            f"'{PINNED}' (or ratchet[tasks])"
        ) from None


def task(name: str, options: Mapping[str, Any], shots: int, size: int) -> Task:
    """`size` different questions, or as many as the data set has.

    Raises: ConfigError for a name or options that the library lacks, or a task whose answers equality cannot check."""
    _check(name)
    entries = _different(name, options, shots + size)
    shown, rest = list(islice(entries, shots)), list(entries)
    if not rest:
        raise ConfigError(
            f"prompts.task={name} has only {len(shown)} different questions; choose other prompts.options"
        )
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", entry["answer"]) for entry in rest)
    answer: AnswerConfig = NumberAnswer() if numbers else STATED
    longest = max(len(entry["answer"]) for entry in rest)
    turns = tuple((entry["question"], f"The answer is {entry['answer']}.") for entry in shown)
    _check_read(name, rest, answer)
    items = [Item(entry["question"], (entry["question"],), entry["answer"]) for entry in rest]
    return Task(items, turns, answer, min(256, 16 + longest + (0 if shots else THINKING_TOKENS)))


def _check(name: str) -> None:
    known: Mapping[str, Any] = import_module("reasoning_gym.factory").DATASETS
    if name not in known:
        raise ConfigError(
            f"prompts.task={name!r} is no data set of {PACKAGE} {version()}; nearest: {nearest(name, known)}"
        )
    plain: Any = import_module("reasoning_gym.dataset").ProceduralDataset
    if known[name][0].score_answer is not plain.score_answer and name not in ONE_RIGHT:
        raise ConfigError(
            f"prompts.task={name} of {PACKAGE} may have several right answers, which only its own verifier can tell; "
            "the report compares answers, so choose a task with one right answer"
        )


def _different(name: str, options: Mapping[str, Any], wanted: int) -> Iterator[dict[str, Any]]:
    """Entries with different questions, each with an answer that the library's own verifier accepts in full."""
    seen: set[str] = set()
    for batch in range(TRIES):
        made = _made(name, {**options, "seed": SEED + batch, "size": wanted})
        for index in range(wanted):
            entry: dict[str, Any] = made[index]
            folded = " ".join(words_of(str(entry["question"])))  # as the check of a run's files compares them
            if folded in seen or not isinstance(entry["answer"], str):
                continue
            seen.add(folded)
            if made.score_answer(entry["answer"], entry) != 1.0:
                raise ConfigError(
                    f"prompts.task={name}: {PACKAGE} does not accept its own answer {entry['answer']!r} to "
                    f"{entry['question'][:80]!r}; choose another task or other prompts.options"
                )
            yield entry
            if len(seen) == wanted:
                return


def _made(name: str, options: dict[str, Any]) -> Any:
    try:
        return import_module("reasoning_gym").create_dataset(name, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"prompts.options={options} do not fit {PACKAGE}'s {name}: {error}") from None


def _check_read(name: str, entries: list[dict[str, Any]], answer: AnswerConfig) -> None:
    """Raises: ConfigError if an answer, as the model is to write it, is not read as the answer itself."""
    extract = extractor(answer)
    for entry in entries:
        own = extract(entry["answer"], stated=True)
        if own is None or extract(f"The answer is {entry['answer']}.") != own:
            raise ConfigError(
                f"prompts.task={name}: its answer {entry['answer'][:80]!r} cannot be read back from a text; choose "
                "another task"
            )
