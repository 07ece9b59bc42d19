"""Counts of votes and their effects: since the start, and since the last event."""

from typing import Literal

Kind = Literal["votes", "left_out", "resettled"]


class VoteTally:
    def __init__(self) -> None:
        self.totals: dict[Kind, int] = {"votes": 0, "left_out": 0, "resettled": 0}
        self._told = dict(self.totals)

    def __bool__(self) -> bool:
        """Whether a count changed since the last `take`."""
        return self.totals != self._told

    def add(self, kind: Kind, n: int) -> None:
        self.totals[kind] += n

    def take(self) -> dict[str, int]:
        """The counts since the last call."""
        news = {str(kind): n - self._told[kind] for kind, n in self.totals.items()}
        self._told = dict(self.totals)
        return news
