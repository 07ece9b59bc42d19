"""Calls that come at about the same time go out as one: a call through Ray costs as much as a hundred small records."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
LARGEST = 256


class Gather(Generic[A, R]):
    def __init__(self, send: Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]], at_once: int = 1) -> None:
        """`send` answers for each; what it raises is every caller's. So many are under way at once: what comes
        meanwhile goes with the next."""
        self._send = send
        self._at_once = at_once
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._under_way = 0
        self._sending: set[asyncio.Task[None]] = set()

    async def __call__(self, what: A) -> R:
        """Raises: what `send` answered this one with."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((what, answer))
        if self._under_way < self._at_once:
            self._under_way += 1
            task = asyncio.create_task(self._send_all())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._under_way -= 1

    async def _send_some(self) -> None:
        batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
        try:
            replies = await self._send([what for what, _ in batch])
        except Exception as error:
            replies = [error] * len(batch)
        for (_, answer), reply in zip(batch, replies, strict=True):
            if answer.done():  # its caller left
                continue
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
