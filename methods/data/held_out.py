"""Held-out questions of a run: what the gate asks, what the report asks, and what may never be trained on."""

from pathlib import Path
from typing import Any

from core.config import Config
from core.messages.versions import Question
from methods.data import prompts
from methods.data.probes import Probes


def probes_of(config: Config) -> tuple[list[Question], bool]:
    """What the gate asks, and whether its answers are keys (certified) or anchors (guarded)."""
    path = config.gate.keys or config.gate.anchors
    if path is None:
        return [], False
    return _questions(path, config, config.gate.split), config.gate.keys is not None


def report_questions(config: Config) -> list[Question]:
    """What the report asks; a missing file means a run without accuracy."""
    path = config.report.questions
    if path is None or not Path(path).is_file():
        return []
    return _questions(path, config, config.report.split)


def kept_out(config: Config) -> Probes:
    """What may never be trained on: the gate's probes and the report's questions, and what is nearly one of them."""
    asked = [*probes_of(config)[0], *report_questions(config)]
    return Probes((question.prompt for question in asked), config.gate.near_duplicate)


def _questions(path: str, config: Config, split: Any) -> list[Question]:
    system = config.prompts.system
    return [Question(prompt, answer) for prompt, answer in prompts.questions(path, system=system, split=split)]
