"""`/v1/feedback`: what people say of answers. Each is about one choice of one response and says one thing:

    {"response_id": "chatcmpl-...", "choice": 0, "id": "mine-1", "user": "ann", and one of
     "binary": true, "better_than": {"response_id": "...", "choice": 1}, "correction": "text", "comment": "text",
     "metric": {"name": "helpful", "value": 0.5}}

or an array of up to 256 of them, taken as a whole or not at all. An `id` makes it safe to send again.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeGuard

from core.aio import Gather
from core.errors import Missing
from serve.http.errors import Refusal

LIMIT = 256
LATE_S = 2.0
"""An answer may still be on its way to the desk when the first feedback on it comes."""
Submission = tuple[Sequence[Mapping[str, Any]], str, bool]
"""Bodies as `parse` gives them; the key that says it; whether it is an admin's."""
Results = list[dict[str, str]]
WAYS = ("binary", "better_than", "correction", "comment", "metric")
FIELDS = frozenset({"id", "response_id", "choice", "user", *WAYS})
NAME_CHARS = 128


class FeedbackClient:
    """Feedback that comes at about the same time goes to the desk in one call. What is about an answer that is not
    written down yet waits for it alone, so that others need not."""

    def __init__(self, ask: Callable[[Sequence[Submission], float], Awaitable[Sequence[Results | Exception]]]) -> None:
        """`ask`: of each what became of it, all on disk; none waits longer than so many seconds for an answer."""
        self._ask = ask
        self._gathered = Gather[Submission, Results](lambda said: ask(said, 0.0))

    async def __call__(self, said: Submission) -> Results:
        """Raises: why it was refused."""
        try:
            return await self._gathered(said)
        except Missing:
            (results,) = await self._ask([said], LATE_S)
        if isinstance(results, Exception):
            raise results
        return results


def parse(body: Any) -> list[dict[str, Any]]:
    """Fields of core.messages.Feedback for each, its `id` where it has one.

    Raises: Refusal 400 that names the field and what was expected."""
    bodies: Sequence[Any] = body if isinstance(body, list) else [body]
    if not 1 <= len(bodies) <= LIMIT:
        raise Refusal(400, f"an array of {len(bodies)} feedbacks; expected 1 to {LIMIT}")
    said = [_parse_one(each, f"[{i}]." if isinstance(body, list) else "") for i, each in enumerate(bodies)]
    ids = [each["id"] for each in said if "id" in each]
    if len(set(ids)) < len(ids):
        raise Refusal(400, "two feedbacks of this array have the same id; give each its own", param="id")
    return said


def _parse_one(body: Any, at: str) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise Refusal(400, f"{at or 'the body'} is {type(body).__name__}, expected an object or an array of objects")
    unknown = [str(name) for name in body if name not in FIELDS]
    if unknown:
        raise Refusal(400, f"no field {at}{unknown[0]}; expected {', '.join(sorted(FIELDS))}", param=unknown[0])
    given = [way for way in WAYS if body.get(way) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise Refusal(400, f"{at}expected exactly one of {', '.join(WAYS)}, found {found}")
    user = _name(body.get("user", ""), f"{at}user", least=0)
    if "/" in user:
        raise Refusal(400, f"{at}user={user!r} holds a slash; give users names without", param="user")
    named = {"id": _name(body["id"], f"{at}id")} if body.get("id") is not None else {}
    return {
        **named,
        "response_id": _name(body.get("response_id"), f"{at}response_id"),
        "choice": _choice(body.get("choice", 0), f"{at}choice"),
        "user": user,
        given[0]: _WAY[given[0]](body[given[0]], f"{at}{given[0]}"),
    }


def _name(value: Any, what: str, least: int = 1) -> str:
    if not is_text(value) or not least <= len(value) <= NAME_CHARS:
        raise Refusal(
            400, f"{what} is {_short(value)}, expected a text of {least} to {NAME_CHARS} characters", param=what
        )
    return value


def _choice(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**16:
        raise Refusal(400, f"{what} is {_short(value)}, expected the index of a choice, from 0", param=what)
    return value


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise Refusal(400, f"{what} is {_short(value)}, expected true or false", param=what)
    return value


def _text(value: Any, what: str) -> str:
    if not is_text(value) or not 1 <= len(value) <= 2**16 or not value.strip():
        raise Refusal(400, f"{what} is {_short(value)}, expected a text of up to {2**16} characters", param=what)
    return value


def _other(value: Any, what: str) -> tuple[str, int]:
    if not isinstance(value, Mapping) or set(value) - {"response_id", "choice"}:
        raise Refusal(400, f'{what} is {_short(value)}, expected {{"response_id": ..., "choice": ...}}', param=what)
    return _name(value.get("response_id"), f"{what}.response_id"), _choice(value.get("choice", 0), f"{what}.choice")


def _metric(value: Any, what: str) -> tuple[str, float]:
    if not isinstance(value, Mapping) or set(value) != {"name", "value"}:
        raise Refusal(400, f'{what} is {_short(value)}, expected {{"name": ..., "value": ...}}', param=what)
    number = value["value"]
    if not isinstance(number, int | float) or isinstance(number, bool) or not math.isfinite(number):
        raise Refusal(400, f"{what}.value is {_short(number)}, expected a finite number", param=what)
    return _name(value["name"], f"{what}.name"), float(number)


def is_text(value: Any) -> TypeGuard[str]:
    """Half of a surrogate pair is no text: JSON may hold one, and no file takes it."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."


_WAY = {"binary": _flag, "better_than": _other, "correction": _text, "comment": _text, "metric": _metric}
