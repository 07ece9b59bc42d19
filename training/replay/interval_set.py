"""A compact set of used places of the prompt source. Memory grows with the number of gaps, not of places."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class IntervalSet:
    """A set of natural numbers, stored as runs. There are few runs, because places are used almost in order."""

    _starts: list[int] = field(default_factory=list[int])
    _ends: list[int] = field(default_factory=list[int])
    """Start (inclusive) and end (exclusive) of each run. Runs are sorted, and do not overlap or touch."""

    @classmethod
    def below(cls, end: int, but: Iterable[int] = ()) -> "IntervalSet":
        """All numbers from 0 to `end` - 1, without those in `but`."""
        places = cls([0], [end]) if end else cls()
        for place in but:
            places.discard(place)
        return places

    def __contains__(self, place: int) -> bool:
        run = bisect_right(self._starts, place) - 1
        return run >= 0 and place < self._ends[run]

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)

    @property
    def runs(self) -> int:
        return len(self._starts)

    def add(self, place: int) -> None:
        if place in self:
            return
        after = bisect_right(self._starts, place)
        meets_before = after > 0 and self._ends[after - 1] == place
        meets_after = after < len(self._starts) and self._starts[after] == place + 1
        if meets_before and meets_after:
            self._ends[after - 1] = self._ends[after]
            del self._starts[after], self._ends[after]
        elif meets_before:
            self._ends[after - 1] = place + 1
        elif meets_after:
            self._starts[after] = place
        else:
            self._starts.insert(after, place)
            self._ends.insert(after, place + 1)

    def discard(self, place: int) -> None:
        if place not in self:
            return
        run = bisect_right(self._starts, place) - 1
        start, end = self._starts[run], self._ends[run]
        left = [(start, place)] if start < place else []
        right = [(place + 1, end)] if place + 1 < end else []
        self._starts[run : run + 1] = [begin for begin, _ in (*left, *right)]
        self._ends[run : run + 1] = [stop for _, stop in (*left, *right)]
