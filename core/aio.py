"""Waits on a condition with a timeout, and batches concurrent calls."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")
LARGEST = 256


async def comes_true(changed: asyncio.Condition, holds: Callable[[], bool], wait_s: float) -> bool:
    """Whether `holds` became true within `wait_s`. It is checked now, and whenever `changed` is notified."""
    async with changed:
        try:
            async with asyncio.timeout(wait_s):
                return await changed.wait_for(holds)
        except TimeoutError:
            return False


class Batcher(Generic[A, R]):
    """Sends concurrent calls as one batch: a call through Ray costs as much as a hundred records."""

    def __init__(self, send: Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]]) -> None:
        """`send` returns one result or exception per item; if it raises, every caller of the batch gets the exception.

        One batch is in flight at a time. Calls that arrive meanwhile form the next, so batches grow with the load."""
        self._send = send
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def __call__(self, item: A) -> R:
        """Raises: the exception that `send` returned for this item, or raised."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
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
            replies = await self._send([item for item, _ in batch])
        except Exception as error:
            replies = [error] * len(batch)
        for (_, answer), reply in zip(batch, replies, strict=True):
            if answer.done():  # the caller was canceled
                continue
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
