"""Passes orders from the trainer to a group of workers: one order at a time, done when every worker has answered."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple
from uuid import uuid4

from core.errors import RatchetError
from core.messages import Published

Order = tuple[str, tuple[object, ...]]
"""A method of the workers' sessions, and its arguments."""
Answer = tuple[Published | None, RatchetError | None]
"""The method's result, or its error."""


class GroupProgress(NamedTuple):
    """Progress of a group with an order: steps of its first worker. `done` of `steps`: those of the order."""

    group: str
    count: int
    """Of all orders."""
    done: int = 0
    steps: int = 0


class Mailbox:
    """`size`: workers of a group. The next group repeats an order that a group left unfinished."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = asyncio.Condition()
        self._number = 0
        self._order: Order | None = None
        self._answers: dict[int, Answer] = {}
        self._done = True
        self._progress = GroupProgress("", 0)
        self._rested: GroupProgress | None = None
        self._stop: RatchetError | None = None

    # --- for the trainer ---

    async def place(self, order: Order) -> int:
        """Place an order; returns its number. The order before must be done or given up."""
        async with self._changed:
            self._number += 1
            self._order, self._answers, self._done = order, {}, False
            self._progress = self._progress._replace(done=0, steps=0)
            self._changed.notify_all()
            return self._number

    async def heard(
        self, number: int, known: GroupProgress | None, wait_s: float
    ) -> tuple[GroupProgress, Answer | None]:
        """Wait for the answer to an order or for progress beyond `known`, at most `wait_s`. Returns the progress, and
        the first worker's answer if the order is done."""
        await self._until(lambda: self._done or self._progress != known, wait_s)
        return self._progress, self._answers[0] if self._done and number == self._number else None

    async def rested(self, progress: GroupProgress, stop: RatchetError | None = None) -> None:
        """Let the group take its next step, or stop the order with this error."""
        async with self._changed:
            self._rested, self._stop = progress, stop
            self._changed.notify_all()

    # --- for the workers ---

    async def begin(self) -> str:
        """Register a new group; returns its name. Calls of the previous group are ignored from now on."""
        async with self._changed:
            self._progress = GroupProgress(uuid4().hex, 0)
            if not self._done:
                self._answers = {}
            self._changed.notify_all()
            return self._progress.group

    async def next(self, group: str, after: int, wait_s: float) -> tuple[int, Order] | None:
        """The number and content of the order after number `after`; None if there is no unfinished one within
        `wait_s`."""

        def there() -> bool:
            return group == self._progress.group and not self._done and self._number > after

        await self._until(there, wait_s)
        return (self._number, self._order) if there() and self._order is not None else None

    async def step(self, group: str, done: int, steps: int) -> RatchetError | None:
        """Called after each optimizer step of the first worker: waits until the trainer lets the group continue.
        Returns the error to stop with, if any."""
        async with self._changed:
            if group != self._progress.group:
                return None
            self._progress = reached = GroupProgress(group, self._progress.count + 1, done, steps)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._rested == reached or self._progress != reached)
            return self._stop if self._rested == reached else None

    async def answer(self, group: str, number: int, rank: int, answer: Answer) -> None:
        async with self._changed:
            if group == self._progress.group and number == self._number:
                self._answers[rank] = answer
                self._done = len(self._answers) == self._size
                self._changed.notify_all()

    async def _until(self, there: Callable[[], bool], wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._changed:
                await self._changed.wait_for(there)
