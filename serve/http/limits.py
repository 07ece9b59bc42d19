"""How much one request may ask for, and how many may be under way at once."""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive

from core.config import AccessConfig
from serve.http.errors import Refusal

COMPLETION_TOKENS = 16
"""vLLM's own bound on a completion that names none; a chat answer has none."""


def check(fields: Mapping[str, Any], access: AccessConfig) -> dict[str, Any]:
    """The fields, with a bound on the answer where they name none and there is one. Raises: Refusal 400."""
    prompts = _prompts(fields.get("prompt"))
    for param in ("n", "best_of"):
        n = _whole(fields, param, 1)
        if (n or 1) * prompts > access.max_n:
            asked = f"{param}={reprlib.repr(n or 1)}" + (f" for {prompts} prompts" if prompts > 1 else "")
            raise Refusal(400, f"{asked}: one request may ask for {access.max_n} answers at most", param=param)
    limit = access.max_tokens
    for param in ("max_tokens", "max_completion_tokens"):
        tokens = _whole(fields, param, 0)
        if limit is not None and tokens is not None and tokens > limit:
            why = f"{param}={reprlib.repr(tokens)}: an answer may have {limit} tokens at most"
            raise Refusal(400, why, param=param)
    if limit is None or fields.get("max_tokens") is not None:
        return dict(fields)
    return {**fields, "max_tokens": limit if "messages" in fields else min(limit, COMPLETION_TOKENS)}


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """Raises: Refusal 413 as soon as the limit is passed, 400 for a client that leaves."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client left before its request was whole")
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise Refusal(413, f"the body is over {max_bytes} bytes; send a shorter request")
        if not message.get("more_body", False):
            return bytes(body)


class Queue:
    """IntervalSet for users' requests, waiting or being answered; who finds none is told when to come back."""

    def __init__(self, access: AccessConfig) -> None:
        self._places = access.max_queue
        self._retry_after_s = access.retry_after_s
        self.inside = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises: Refusal 429."""
        if self.inside >= self._places:
            why = f"{self.inside} requests are under way, which is all that fit; try again in {self._retry_after_s} s"
            raise Refusal(429, why, "rate_limit_error", headers={"Retry-After": str(self._retry_after_s)})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def _whole(fields: Mapping[str, Any], param: str, least: int) -> int | None:
    """Strict: the engine would also take "8" and 8.0, which could not be compared here."""
    value = fields.get(param)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise Refusal(400, f"{param}={reprlib.repr(value)}: expected a whole number from {least}, or null", param=param)
    return value


def _prompts(prompt: Any) -> int:
    """How many prompts the field holds: a text and a list of token ids are one, a list of those as many as it has."""
    return max(1, sum(type(item) is not int for item in prompt)) if isinstance(prompt, list) else 1
