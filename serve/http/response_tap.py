"""Watches one answer on its way to the client."""

import asyncio
import re
import time
from collections.abc import Callable

from starlette.types import Message, Send

from core.messages import PolicyRef
from serve.http.recorder import Transcript

ROLE, USAGE, DONE = b'"delta":{"role":"assistant","content":""}', b'"choices":[]', b"data: [DONE]"
"""Events without text. vLLM sends another event right after each; joined, the two cross Serve and the gateway once."""
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


class ResponseTap:
    """An ASGI `send` that adds the headers with version and replica, counts tokens, and keeps the text for feedback."""

    def __init__(self, send: Send, ref: PolicyRef, replica: str, dying: Callable[[], bool]) -> None:
        """`dying`: whether the engine is dead, so that its answers are errors that no client should see."""
        self.transcript = Transcript()
        self._send = send
        self._dying = dying
        self._headers = [(b"x-policy-version", str(ref.version).encode()), (b"x-policy-replica", replica.encode())]
        self._streaming = False
        self._start: Message | None = None
        self._silent: list[bytes] = []
        self._asked_at = time.monotonic()
        self.status = 0
        self.tokens = 0
        self.first_token_s: float | None = None
        """From the request to the first token; only for streams."""

    async def __call__(self, message: Message) -> None:
        if self._dying():
            await asyncio.Event().wait()  # the process ends, the connection breaks, the gateway tries another replica
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", [])
            self._streaming = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)
            self._start = {**message, "headers": [*headers, *self._headers]}
            return  # held until the first text: until the gateway gets a byte, it may try another replica
        body, last = message.get("body", b""), not message.get("more_body", False)
        if self._streaming and not last and (ROLE in body or USAGE in body or DONE in body):
            self._silent.append(body)
            return
        if self._silent:
            body = b"".join((*self._silent, body))
            self._silent.clear()
            message = {**message, "body": body}
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        if self._streaming and body and self.first_token_s is None:
            self.first_token_s = time.monotonic() - self._asked_at
        self._count(body)
        self.transcript.feed(body, self._streaming, last)
        await self._send(message)

    def _count(self, body: bytes) -> None:
        """A streamed event is about one token; a whole body has the number in its usage."""
        if self._streaming:
            self.tokens += body.count(b"data: {")
        elif (found := COMPLETION_TOKENS.search(body)) is not None:
            self.tokens = int(found[1])
