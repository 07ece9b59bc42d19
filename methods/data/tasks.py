"""Makes the files of a task, once: the pool to learn from, held-out questions for the gate, and a test for the report.

Only `test.parquet` holds answers. No item is in two files, whatever its phrasing. Examples (shots) are in none.
"""

import random
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core import cache, shipped
from core.artifacts import appearing, digest_file, verify
from core.codec import stable_id
from core.config import AnswerConfig, Config, Part, PromptsConfig
from core.errors import ConfigError
from methods.data import gym_tasks, word_tasks
from methods.data.task_items import Item, Task
from methods.data.text import words_of

SEED = 0
HELD_OUT, TEST = 0.25, 0.2
"""Shares of the items; the rest is the pool."""
FORMAT = 1
"""Of the files; a new number makes them anew."""


def with_task(config: Config, tell: Callable[[str], None] = lambda line: None) -> Config:
    """The config with the files of its task, where it names no others, and with the task's way of reading answers.

    Raises: ConfigError for a task that does not exist or cannot be checked."""
    if config.prompts.kind == "file":
        return config
    folder, made = ready(config.prompts, tell)
    named, of_tasks = Path(config.prompts.path), cache.root() / "tasks"
    if named.is_relative_to(of_tasks) and named.parent != folder:
        raise ConfigError(
            f"prompts.path={named} is of another task than prompts.task={config.prompts.task} with these settings; "
            "start a new run for it, without this path"
        )
    prompts, gate, report, method = config.prompts, config.gate, config.report, config.method
    if _is_default(prompts, "path"):
        here = {"path": str(folder / "pool.parquet"), "column": "prompt", "split": None}
        prompts = prompts.model_copy(update=here)
    if _is_default(report, "questions"):
        report = report.model_copy(update={"questions": str(folder / "test.parquet"), "split": None})
    if _is_default(gate, "held_out"):
        gate = gate.model_copy(update={"held_out": str(folder / "held_out.parquet")})
    if _is_default(gate, "anchors"):  # the default's are of another task
        gate = gate.model_copy(update={"anchors": None, "anchor_precision": None, "split": None})
    if _is_default(gate, "near_duplicate"):  # the splits are by item; phrasings are alike
        gate = gate.model_copy(update={"near_duplicate": 1.0})
    if _is_default(method, "answer"):
        answer = TypeAdapter[AnswerConfig](AnswerConfig).validate_python(made["answer"])
        method = method.model_copy(update={"answer": answer})
    if _is_default(method.sampler, "max_tokens"):
        tokens = min(int(made["max_tokens"]), config.serve.engine.max_tokens // 2)
        method = method.model_copy(update={"sampler": method.sampler.model_copy(update={"max_tokens": tokens})})
    return config.model_copy(update={"prompts": prompts, "gate": gate, "report": report, "method": method})


def ready(settings: PromptsConfig, tell: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """The task's folder, made first if it is not in the cache, and its manifest. Raises: ConfigError."""
    name = settings.task or ""
    folder = cache.root() / "tasks" / f"{name}-{_digest(settings)}"
    if not folder.exists():
        task = made(settings)
        with cache.making(folder):
            if not folder.exists():
                _write(folder, task, settings.size)
    manifest = verify(folder)
    counts = ", ".join(f"{count} {part}" for part, count in manifest["questions"].items())
    tell(f"task {name}: {counts} questions in {folder}")
    return folder, manifest


def made(settings: PromptsConfig) -> Task:
    """The task with as many shots and questions as the settings say. Raises: ConfigError."""
    name = settings.task or ""
    if settings.kind == "words":
        shots = word_tasks.SHOTS if settings.shots is None else settings.shots
        task = word_tasks.task(name)
    else:
        shots = gym_tasks.SHOTS if settings.shots is None else settings.shots
        task = gym_tasks.task(name, settings.options, shots, settings.size or gym_tasks.SIZE)
    if shots > len(task.shots):
        raise ConfigError(f"prompts.shots={shots}: the task {name} has {len(task.shots)} examples; set at most so many")
    return Task(task.items, task.shots[:shots], task.answer, task.max_tokens)


def splits(items: Sequence[Item], size: int | None = None, seed: int = SEED) -> dict[str, list[Item]]:
    """Part -> items. All items with a key are in one part. `size` bounds the questions of all parts together."""
    by_key: dict[str, list[Item]] = {}
    for item in items:
        by_key.setdefault(item.key, []).append(item)
    keys = sorted(by_key)
    random.Random(seed).shuffle(keys)
    ends = accumulate(sum(len(item.questions) for item in by_key[key]) for key in keys)
    keys = [key for key, end in zip(keys, ends, strict=True) if size is None or end <= size]
    held_out, test = round(HELD_OUT * len(keys)), round(TEST * len(keys))
    parts = {"pool": keys[held_out + test :], "held_out": keys[:held_out], "test": keys[held_out : held_out + test]}
    return {part: [item for key in names for item in by_key[key]] for part, names in parts.items()}


def _digest(settings: PromptsConfig) -> str:
    """Of everything that the files depend on."""
    name = settings.task or ""
    if settings.kind == "words":
        word_tasks.task(name)
        source = digest_file(word_tasks.FOLDER / f"{name}.tsv") + repr(word_tasks.WORDS[name])
    else:
        source = gym_tasks.version()
    chosen = settings.model_dump_json(include={"kind", "task", "options", "shots", "size"})
    return stable_id("task", str(FORMAT), chosen, source)[:16]


def _write(folder: Path, task: Task, size: int | None) -> None:
    parts = splits(task.items, size)
    questions = {part: _questions(items) for part, items in parts.items()}
    _check_apart(questions, {question for question, _ in task.shots})
    about: dict[str, Any] = {
        "answer": task.answer.model_dump(mode="json"),
        "max_tokens": task.max_tokens,
        "questions": {part: len(pairs) for part, pairs in questions.items()},
    }
    with appearing(folder, about) as filled:
        for part, pairs in questions.items():
            columns: dict[str, list[Any]] = {"prompt": [_chat(task, question) for question, _ in pairs]}
            if part == "test":
                columns["answer"] = [answer for _, answer in pairs]
            _write_parquet(columns, filled / f"{part}.parquet")


def _questions(items: Sequence[Item]) -> list[tuple[str, str]]:
    pairs = [(question, item.answer) for item in items for question in item.questions]
    random.Random(SEED).shuffle(pairs)
    return pairs


def _check_apart(questions: dict[str, list[tuple[str, str]]], shots: set[str]) -> None:
    """Raises: ConfigError if a part is empty, or a question is in two of them or an example."""
    if empty := [part for part, pairs in questions.items() if not pairs]:
        raise ConfigError(f"the task has too few questions for its part {empty[0]}; raise prompts.size")
    seen = {" ".join(words_of(question)): "the examples" for question in shots}
    for part, pairs in questions.items():
        for question, _ in pairs:
            if (other := seen.setdefault(" ".join(words_of(question)), part)) != part:
                raise ConfigError(f"the question {question[:80]!r} is both in {part} and in {other}; report this task")


def _chat(task: Task, question: str) -> str | list[dict[str, str]]:
    """A text, or with shots a chat."""
    if not task.shots:
        return question
    turns = [(role, text) for shot in task.shots for role, text in zip(("user", "assistant"), shot, strict=True)]
    return [{"role": role, "content": text} for role, text in [*turns, ("user", question)]]


def _write_parquet(columns: dict[str, list[Any]], to: Path) -> None:
    arrow: Any = import_module("pyarrow")  # no type stubs; slow to import
    parquet: Any = import_module("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), to)


def _is_default(part: Part, name: str) -> bool:
    """Whether the user did not set it. A shipped file may have been set as an absolute path by then."""
    default = type(part).model_fields[name].default
    value = getattr(part, name)
    return name not in part.model_fields_set or (isinstance(default, str) and value == shipped.found(default))
