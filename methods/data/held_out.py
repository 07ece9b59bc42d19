"""Held-out questions of a run: the gate's probes and the report's questions, which must never be trained on."""

from pathlib import Path
from typing import Any

from core.answers import extractor
from core.config import Config
from core.messages.versions import Question
from methods.data import prompts
from methods.data.probes import Probes


def probes_of(config: Config) -> tuple[list[Question], bool]:
    """The gate's probes, and whether their answers are keys (True: certified) or anchors (False: guarded)."""
    path = config.gate.keys or config.gate.anchors
    if path is None:
        return [], False
    return _questions(path, config, config.gate.split), config.gate.keys is not None


def report_questions(config: Config) -> list[Question]:
    """The report's questions; empty if the file is missing: the run then reports no accuracy."""
    path = config.report.questions
    if path is None or not Path(path).is_file():
        return []
    return _questions(path, config, config.report.split)


def kept_out(config: Config) -> Probes:
    """Detects prompts that must not be trained on: probes, questions of the report, and near duplicates of them."""
    held_out = [*probes_of(config)[0], *report_questions(config)]
    return Probes((question.prompt for question in held_out), config.gate.near_duplicate)


def _questions(path: str, config: Config, split: Any) -> list[Question]:
    extract, system = extractor(config.method.answer), config.prompts.system
    pairs = prompts.questions(path, extract=extract, system=system, split=split)
    return [Question(prompt, answer) for prompt, answer in pairs]
