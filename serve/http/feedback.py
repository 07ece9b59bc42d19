"""`/v1/feedback`: votes, corrections and comments on answers. Each is about one choice of one response:

    {"response_id": "chatcmpl-...", "choice": 0, "id": "mine-1", "user": "ann", and exactly one of
     "binary": true, "better_than": {"response_id": "...", "choice": 1}, "correction": "text", "comment": "text",
     "metric": {"name": "helpful", "value": 0.5}}

An array of up to LIMIT is accepted whole or refused whole. A client that gives an `id` may safely send again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from core.aio import Batcher
from core.errors import Missing
from serve.http.errors import Refusal, refusal_for

LIMIT = 256
LATE_S = 2.0
"""The recorder sends answers in batches, so the first feedback on an answer may arrive before the answer itself."""
WAYS = ("binary", "better_than", "correction", "comment", "metric")
Submission = tuple[Sequence[Mapping[str, Any]], str, bool]
"""One request: bodies as `parse` returns them, the name of the key, and whether the key is an admin's."""
Results = list[dict[str, str]]

Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=2**16, pattern=r"\S")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Choice(_Part):
    response_id: Name
    choice: int = Field(default=0, ge=0, lt=2**16)


class NamedNumber(_Part):
    name: Name
    value: float = Field(allow_inf_nan=False)


class FeedbackBody(Choice):
    """Feedback as a client sends it: `core.messages.Feedback` without the fields that the server fills in."""

    id: Name | None = None
    user: str = Field(default="", max_length=128, pattern="^[^/]*$")
    """Without a slash, which separates key and user in a voter's name."""
    binary: bool | None = None
    better_than: Choice | None = None
    correction: Text | None = None
    comment: Text | None = None
    metric: NamedNumber | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "FeedbackBody":
        given = [way for way in WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(WAYS)}, found {', '.join(given) or 'none'}")
        return self

    def fields(self) -> dict[str, Any]:
        """Fields of `core.messages.Feedback`, which holds objects as pairs; without `id` when the client gave none."""
        given = self.model_dump(exclude_none=True)
        return {name: tuple(value.values()) if isinstance(value, dict) else value for name, value in given.items()}


_MANY = TypeAdapter(Annotated[list[FeedbackBody], Field(min_length=1, max_length=LIMIT)])


def parse(body: Any) -> list[dict[str, Any]]:
    """The `FeedbackBody.fields` of one body or of an array of them.

    Raises: Refusal 400 that names the field, its value and what was expected."""
    try:
        bodies = _MANY.validate_python(body) if isinstance(body, list) else [FeedbackBody.model_validate(body)]
    except ValidationError as error:
        raise refusal_for(error) from None
    ids = [each.id for each in bodies if each.id is not None]
    if len(set(ids)) < len(ids):
        raise Refusal(400, "two feedbacks of this array have the same id; give each its own", param="id")
    return [each.fields() for each in bodies]


class FeedbackClient:
    """Sends feedback to the feedback actor. Requests that arrive at about the same time share one call. Feedback on an
    answer that is not recorded yet waits in a call of its own, so that it holds up no other request."""

    def __init__(self, ask: Callable[[Sequence[Submission], float], Awaitable[Sequence[Results | Exception]]]) -> None:
        """`ask`: returns for each submission its results, once on disk, or the reason for its refusal. Waits at most
        the given seconds for answers that are not recorded yet."""
        self._ask = ask
        self._gathered = Batcher[Submission, Results](lambda submissions: ask(submissions, 0.0))

    async def __call__(self, submission: Submission) -> Results:
        """Raises: the reason for its refusal."""
        try:
            return await self._gathered(submission)
        except Missing:
            (results,) = await self._ask([submission], LATE_S)
        if isinstance(results, Exception):
            raise results
        return results
