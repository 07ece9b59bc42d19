"""What every task of `prompts.kind` other than `file` consists of, whoever made it."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.config import AnswerConfig


@dataclass(frozen=True)
class Item:
    key: str
    """Items with the same key are never in two splits."""
    questions: tuple[str, ...]
    """The same question in several phrasings."""
    answer: str


@dataclass(frozen=True)
class Task:
    items: Sequence[Item]
    shots: tuple[tuple[str, str], ...]
    """Questions that are no items, with their answers as the model is to write them."""
    answer: AnswerConfig
    """Reads the answer of a text."""
    max_tokens: int
    """Enough for an answer."""
