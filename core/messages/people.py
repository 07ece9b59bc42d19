"""What people say: votes, answers that they got, and feedback on them."""

from typing import Literal

from pydantic import Field

from core.messages.base import Message
from core.messages.model import PolicyRef, Prompt


class Vote(Message):
    """One vote in the ballot of a prompt. Samples and people cast into the same ballot."""

    id: str
    prompt_id: str
    candidate_id: str | None = None
    answer: str | None = None
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """May be negative."""
    by: Literal["sample", "person", "verifier"] = "sample"
    voter: str = ""
    """Who cast it. All votes without a name are one voter's."""
    cast_at: float = 0.0
    correction: str | None = Field(default=None, max_length=2**16)
    """A text to imitate, from a person who misses it among the candidates; without `answer` a vote for what it says."""
    counted: bool = True
    """False: kept, and in no ballot, because its voter had voted on too many prompts of this window."""
    response_id: str | None = None
    """The answer that it is about, where it came with feedback on one."""


class Response(Message):
    """What a user was answered, as far as a vote on it must know."""

    id: str
    prompt: Prompt | None
    """None for what is no chat of texts: votes on it are kept, and nothing is learned from them."""
    texts: tuple[str, ...]
    """Of each choice."""
    start: PolicyRef
    end: PolicyRef
    key: str = ""
    """Name of the key that asked; empty where there are no keys."""
    user: str = ""
    at: float
    learn: bool = True
    """False: the client asked not to be learned from."""


class Feedback(Message):
    """What somebody said of one choice of a response: exactly one of the five."""

    id: str
    response_id: str
    choice: int = Field(default=0, ge=0)
    binary: bool | None = None
    better_than: tuple[str, int] | None = None
    """A response to the same prompt, and which choice of it, that this one is better than."""
    correction: str | None = Field(default=None, min_length=1, max_length=2**16)
    comment: str | None = Field(default=None, min_length=1, max_length=2**16)
    metric: tuple[str, float] | None = None
    key: str = ""
    user: str = ""
    at: float = 0.0

    @property
    def voter(self) -> str:
        """The key; users are told apart below it, within its cap."""
        return f"{self.key}/{self.user}" if self.key and self.user else self.key or self.user
