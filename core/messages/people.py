"""Votes, responses to users, and feedback on responses."""

from typing import Literal

from pydantic import Field

from core.messages.base import Message
from core.messages.model import PolicyRef, Prompt


class Compared(Message):
    """A text that a person compared with another one."""

    text: str = Field(max_length=2**16)
    by: PolicyRef
    """The version that wrote it."""


class Vote(Message):
    """One vote in the ballot of a prompt. Samples and people vote in the same ballot."""

    id: str
    prompt_id: str
    candidate_id: str | None = None
    answer: str | None = None
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """May be negative."""
    by: Literal["sample", "person", "verifier"] = "sample"
    voter: str = ""
    """Name of the voter. All votes without a name count as one voter's."""
    cast_at: float = 0.0
    correction: str | None = Field(default=None, max_length=2**16)
    """A text to imitate, which a person missed among the candidates. Without `answer` it is a vote for its answer."""
    counted: bool = True
    """False: stored but in no ballot, because the voter had voted on too many prompts of this window."""
    response_id: str | None = None
    """The response that the feedback was about, if the vote came as feedback."""
    pair: tuple[Compared, Compared] | None = None
    """The better and the worse text, if the person compared two answers to the prompt. The vote is for the better
    one's answer."""


class Response(Message):
    """A response to a user, with the fields that votes on it need."""

    id: str
    prompt: Prompt | None
    """None if the request was not a chat of texts: votes on it are stored, but not learned from."""
    texts: tuple[str, ...]
    """One text per choice."""
    fragments: tuple[int, ...] = ()
    """Choices that were cut off or forced by the request: votes on them are kept, but not counted."""
    start: PolicyRef
    end: PolicyRef
    key: str = ""
    """Name of the API key of the request; empty if the service has no keys."""
    user: str = ""
    at: float
    learn: bool = True
    """False: the client opted out of learning."""


class Feedback(Message):
    """A person's feedback on one choice of a response. Exactly one of `binary`, `better_than`, `correction`, `comment`
    and `metric` is set."""

    id: str
    response_id: str
    choice: int = Field(default=0, ge=0)
    binary: bool | None = None
    better_than: tuple[str, int] | None = None
    """Id of a response to the same prompt, and index of its choice, that this one is better than."""
    correction: str | None = Field(default=None, min_length=1, max_length=2**16)
    comment: str | None = Field(default=None, min_length=1, max_length=2**16)
    metric: tuple[str, float] | None = None
    key: str = ""
    user: str = ""
    at: float = 0.0

    @property
    def voter(self) -> str:
        """`key/user`, or the one that is set. The users of a key vote separately, within the limits of the key."""
        return f"{self.key}/{self.user}" if self.key and self.user else self.key or self.user
