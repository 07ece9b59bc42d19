"""Waiting for other tasks, and calls that go out together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
LARGEST = 256


async def comes_true(changed: asyncio.Condition, holds: Callable[[], bool], wait_s: float) -> bool:
    """Whether it held within `wait_s`; looked at now and whenever `changed` is notified."""
    async with changed:
        try:
            async with asyncio.timeout(wait_s):
                return await changed.wait_for(holds)
        except TimeoutError:
            return False


class Batcher(Generic[A, R]):
    """Calls that come at about the same time go out as one: a call through Ray costs as much as a hundred records."""

    def __init__(self, send: Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]]) -> None:
        """`send` answers for each; what it raises is every caller's. One is under way: what comes meanwhile goes with
        the next, so that they grow with the load."""
        self._send = send
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def __call__(self, what: A) -> R:
        """Raises: what `send` answered this one with."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((what, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())
        return await answer

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._sending = None

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
