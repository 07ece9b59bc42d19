"""Facts that the buffer owes the store. A write may end without anybody knowing whether it was kept, so what is owed is
written again until the store acknowledges it."""

from collections.abc import Awaitable, Callable, Sequence

from actors.replay.recovery import PAUSED
from core.errors import Overdue, StoreError, Unavailable
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

    def owe(self, record: Record) -> None:
        """In place of what was owed by this name."""
        self._facts[record.id] = record
        if record.id == PAUSED:
            self._paused = record

    async def write(self, insist: bool = False) -> None:
        """Write what is due or, when the store would not, leave it to the next time; `insist`: or raise."""
        due = dict(self._facts)
        if not due:
            return
        try:
            await self._append(list(due.values()))
        except UNSURE:
            if insist:
                raise
            return
        for name, record in due.items():
            if self._facts.get(name) is record:
                del self._facts[name]
            elif name == PAUSED and name not in self._facts and self._paused is not None:
                self._facts[PAUSED] = self._paused  # this one waited, and overwrote a newer one just now
