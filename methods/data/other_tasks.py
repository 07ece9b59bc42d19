"""Tasks that a run does not learn, asked to see what is lost on them: `report.other_tasks`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from core.answers import extractor
from core.config import AnswerConfig, Config, PromptsConfig
from core.errors import ConfigError
from core.messages.versions import Question
from methods.data import prompts, tasks

KINDS = ("words", "reasoning-gym")
"""Of `prompts.kind`, those that are named by a task."""


@dataclass(frozen=True)
class OtherTask:
    name: str
    """As in the setting."""
    questions: list[Question]
    answer: AnswerConfig
    """Reads the answer of a text."""
    max_tokens: int


def other_tasks(config: Config, tell: Callable[[str], None] = lambda line: None) -> list[OtherTask]:
    """In the order of the setting. A task's files are made first, if they are not in the cache.

    Raises: ConfigError for a task or a file that does not exist, or the task that the run learns."""
    return [_task(name, config, tell) for name in config.report.other_tasks]


def _task(name: str, config: Config, tell: Callable[[str], None]) -> OtherTask:
    kind, slash, task = name.partition("/")
    limit = config.report.per_other_task
    if slash and kind in KINDS:
        settings = PromptsConfig.model_validate({"kind": kind, "task": task})
        if (kind, task) == (config.prompts.kind, config.prompts.task):
            raise ConfigError(f"report.other_tasks: {name} is the task that this run learns; name others")
        folder, made = tasks.ready(settings, tell)
        answer = TypeAdapter[AnswerConfig](AnswerConfig).validate_python(made["answer"])
        file, max_tokens = folder / "test.parquet", min(made["max_tokens"], config.serve.engine.max_tokens // 2)
    else:
        file, answer, max_tokens = Path(name), config.method.answer, config.method.sampler.max_tokens
        if not file.is_file():
            raise ConfigError(
                f"report.other_tasks: {name!r} is no file; expected words/NAME, reasoning-gym/NAME, or a Parquet or "
                "JSONL file with the columns prompt and answer"
            )
    asked = prompts.questions(file, extract=extractor(answer), system=config.prompts.system)
    return OtherTask(name, asked[:limit], answer, max_tokens)
