"""What users were answered, on its way to the desk: read off the answer as it goes by, and sent in batches, so that no
user waits for it."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import RatchetError

log = logging.getLogger("ratchet.recorder")
GATHER_S = 0.5
"""Each batch is a call and a sync, on the processors that answer. A vote on an answer waits for it no longer."""
BATCH = 256
ROOM = 16_384
"""Answers that wait for a desk which is away; the oldest beyond that are not recorded."""
RETRY_S = 0.5


class Transcript:
    """Id and texts of an answer, from its body or its server-sent events."""

    def __init__(self) -> None:
        self.id = ""
        self.texts: dict[int, str] = {}
        self.whole = False
        """Transcript to its end: its client did not leave. Before that it has neither id nor texts."""
        self._parts: list[bytes] = []

    def feed(self, body: bytes, streaming: bool, last: bool) -> None:
        """A part of the body; `last`: there are no more."""
        self._parts.append(body)
        if last:
            self.whole = True
            body = b"".join(self._parts)
            events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")] if streaming else [body]
            try:  # all at once: one by one they cost their replica a twentieth of its time
                for said in json.loads(b"[" + b",".join(events) + b"]"):
                    self._hear(said)
            except (ValueError, KeyError, TypeError, AttributeError):  # an error, or no answer that has texts
                return

    def _hear(self, said: Any) -> None:
        self.id = self.id or str(said["id"])
        for choice in said["choices"]:
            part = choice.get("message") or choice.get("delta") or choice
            index = int(choice["index"])
            self.texts[index] = self.texts.get(index, "") + (part.get("content") or part.get("text") or "")


class Recorder:
    def __init__(self, send: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]) -> None:
        """`send`: returns when they are on disk. Raises: RatchetError when it should be tried again."""
        self._send = send
        self._waiting: deque[dict[str, Any]] = deque(maxlen=ROOM)
        self._some = asyncio.Event()

    def add(self, response: dict[str, Any]) -> None:
        self._waiting.append(response)
        self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._send(batch)
                except RatchetError as error:
                    log.warning("answers are not recorded yet (%s)", error)
                    self._waiting.extendleft(reversed(batch))
                    await asyncio.sleep(RETRY_S)
