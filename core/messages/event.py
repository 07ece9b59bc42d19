"""The run's history."""

from typing import Any

from pydantic import Field

from core.messages.base import Message


class Event(Message):
    """One line of the run's history."""

    at: float
    actor: str
    kind: str
    detail: dict[str, Any] = Field(default_factory=dict)
