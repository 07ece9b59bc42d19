"""Facts that the store has not acknowledged. After a failed write it may be unknown whether the store has them, so the
outbox writes them again until the store acknowledges them."""

from collections.abc import Awaitable, Callable, Sequence

from core.errors import Overdue, StoreError, Unavailable
from core.store.facts import Paused
from core.store.records import Record

UNSURE = (StoreError, Overdue, Unavailable)
"""Errors of a write after which it is unknown whether the store has the records."""


class Outbox:
    """`append` returns when its records are on disk."""

    def __init__(self, append: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        self._append = append
        self._facts: dict[str, Record] = {}
        self._paused: Record | None = None
        """The newest `paused` fact. The store may have received an older one last."""

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def add(self, record: Record) -> None:
        """Replaces a waiting fact of the same name."""
        self._facts[record.id] = record
        if record.id == Paused.NAME:
            self._paused = record

    async def write(self, insist: bool = False) -> None:
        """Write all waiting facts. On an error they wait for the next call. `insist`: raise the error instead."""
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
                self._facts[name] = self._paused  # this write was delayed and has just overwritten a newer one
