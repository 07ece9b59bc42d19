"""Held-out questions of a run: the gate's probes and the report's questions, which must never be trained on."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.answers import extractor
from core.config import Config, PromptsConfig
from core.messages import Prompt
from core.messages.versions import Question
from methods.data import prompts
from methods.data.probes import Probes

ANCHORS, UNFINISHED = "anchors.parquet", "anchors.parquet.unfinished"
"""In the directory of a run that makes its own."""


def anchors_of(config: Config, run_dir: Path | None) -> Path | None:
    """The file of anchors: `gate.anchors`, or the run's own, if it makes them from `gate.held_out`."""
    if config.gate.anchors is not None:
        return Path(config.gate.anchors)
    return run_dir / ANCHORS if run_dir is not None and config.gate.held_out is not None else None


def lacks_anchors(config: Config, run_dir: Path | None) -> bool:
    """Whether the run has to make its anchors from `gate.held_out` first."""
    path = anchors_of(config, run_dir)
    missing = path is None or not path.is_file()
    return config.gate.held_out is not None and config.gate.keys is None and missing


def probes_of(config: Config, run_dir: Path | None = None) -> tuple[list[Question], bool]:
    """The gate's probes, and whether their answers are keys (True: certified) or anchors (False: guarded). None while
    the run lacks its anchors."""
    path = config.gate.keys or anchors_of(config, run_dir)
    if path is None or lacks_anchors(config, run_dir):
        return [], False
    return _questions(str(path), config, config.gate.split), config.gate.keys is not None


def unanswered(config: Config) -> PromptsConfig | None:
    """How to read the prompts of `gate.held_out`, or None if there are none."""
    if config.gate.held_out is None:
        return None
    here = {"path": config.gate.held_out, "column": "prompt", "split": config.gate.split, "limit": None}
    return config.prompts.model_copy(update=here)


def report_questions(config: Config) -> list[Question]:
    """The report's questions; empty if the file is missing: the run then reports no accuracy."""
    path = config.report.questions
    if path is None or not Path(path).is_file():
        return []
    return _questions(path, config, config.report.split)


def kept_out(config: Config, questions: Sequence[Question] | None = None) -> Probes:
    """Detects prompts that must not be trained on: probes, questions of the report, and near duplicates of them.
    `questions`: both, where they are read already."""
    if questions is None:
        questions = [*probes_of(config)[0], *report_questions(config)]
    asked = unanswered(config)
    unknown: Iterable[Prompt] = () if asked is None else prompts.read(asked, setting="gate.held_out")
    return Probes([*(question.prompt for question in questions), *unknown], config.gate.near_duplicate)


def _questions(path: str, config: Config, split: Any) -> list[Question]:
    extract, system = extractor(config.method.answer), config.prompts.system
    return prompts.questions(path, extract=extract, system=system, split=split)
