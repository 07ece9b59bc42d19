"""Limits on one request (answers, tokens, bytes) and on the requests in progress."""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive

from core.config import AccessConfig
from serve.http.errors import Refusal

COMPLETION_TOKENS = 16
"""vLLM's default `max_tokens` of a completion. Chat answers have no default."""


def check(fields: Mapping[str, Any], access: AccessConfig) -> dict[str, Any]:
    """The fields, with `max_tokens` set to its limit when the client gave none. Raises: Refusal 400."""
    prompts = _prompts(fields.get("prompt"))
    for param in ("n", "best_of"):
        n = _whole(fields, param, 1)
        if (n or 1) * prompts > access.max_n:
            asked = f"{param}={reprlib.repr(n or 1)}" + (f" for {prompts} prompts" if prompts > 1 else "")
            raise Refusal(400, f"{asked}: one request may ask for {access.max_n} answers at most", param=param)
    _refuse_grammars(fields)
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
    """The whole body. Raises: Refusal 413 as soon as it is too long, 400 when the client disconnects."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client disconnected before its request was complete")
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise Refusal(413, f"the body is over {max_bytes} bytes; send a shorter request")
        if not message.get("more_body", False):
            return bytes(body)


class Queue:
    """Bounds the user requests of this replica, waiting or in progress. Above the bound a request gets a 429."""

    def __init__(self, access: AccessConfig) -> None:
        self._places = access.max_queue
        self._retry_after_s = access.retry_after_s
        self.inside = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises: Refusal 429."""
        if self.inside >= self._places:
            why = f"{self.inside} requests are in progress, which is the limit; try again in {self._retry_after_s} s"
            raise Refusal(429, why, "rate_limit_error", headers={"Retry-After": str(self._retry_after_s)})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def _refuse_grammars(fields: Mapping[str, Any]) -> None:
    """xgrammar never returns from some grammars (left recursion), and nothing stops it. Structural tags hold them."""
    for param in ("structured_outputs", "response_format"):
        wanted = fields.get(param)
        for kind in ("grammar", "structural_tag"):
            if isinstance(wanted, Mapping) and (wanted.get(kind) is not None or wanted.get("type") == kind):
                why = f"{param}: a {kind} is not accepted, because some never end; use `json`, `regex` or `choice`"
                raise Refusal(400, why, param=param)


def _whole(fields: Mapping[str, Any], param: str, least: int) -> int | None:
    """Stricter than vLLM, which takes "8" and 8.0 too: those cannot be compared with a limit."""
    value = fields.get(param)
    if value is None:
        return None
    if type(value) is not int or value < least:
        raise Refusal(400, f"{param}={reprlib.repr(value)}: expected a whole number from {least}, or null", param=param)
    return value


def _prompts(prompt: Any) -> int:
    """Number of prompts: a text or a list of token ids is one, a list of these has as many as its length."""
    return max(1, sum(type(item) is not int for item in prompt)) if isinstance(prompt, list) else 1
