"""Facts that the store has not acknowledged. A write may end without anybody knowing whether it was kept, so they are
written again until the store acknowledges them."""

from collections.abc import Awaitable, Callable, Sequence

from core.errors import Overdue, StoreError, Unavailable
from core.store.facts import Paused
from core.store.records import Record

UNSURE = (StoreError, Overdue, Unavailable)
"""Ends of a write after which nobody knows whether it was kept."""


class Outbox:
    """`append` returns when its records are on disk."""

    def __init__(self, append: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        self._append = append
        self._facts: dict[str, Record] = {}
        self._paused: Record | None = None
        """The newest `paused` fact, whatever order the store takes them in."""

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def add(self, record: Record) -> None:
        """In place of one of the same name."""
        self._facts[record.id] = record
        if record.id == Paused.NAME:
            self._paused = record

    async def write(self, insist: bool = False) -> None:
        """Write all; what the store does not take is left to the next time. `insist`: raise its error instead."""
        due = dict(self._facts)
        if not due:
            return
        try:
            await self._append(list(due.values()))
        except UNSURE:
            if insist:
                raise
            return
        self._acknowledged(due)

    def _acknowledged(self, written: dict[str, Record]) -> None:
        for name, record in written.items():
            if self._facts.get(name) is record:
                del self._facts[name]
            elif name == Paused.NAME and name not in self._facts and self._paused is not None:
                self._facts[name] = self._paused  # this one waited, and overwrote a newer one just now
