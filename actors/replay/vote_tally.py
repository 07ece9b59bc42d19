"""How many votes came and what they changed: since the start, and since the last line of history."""

from typing import Literal

What = Literal["votes", "left_out", "resettled"]


class VoteTally:
    def __init__(self) -> None:
        self.totals: dict[What, int] = {"votes": 0, "left_out": 0, "resettled": 0}
        self._told = dict(self.totals)

    def __bool__(self) -> bool:
        """Whether there is news."""
        return self.totals != self._told

    def add(self, what: What, n: int) -> None:
        self.totals[what] += n

    def take(self) -> dict[str, int]:
        """The news, once."""
        news = {str(what): n - self._told[what] for what, n in self.totals.items()}
        self._told = dict(self.totals)
        return news
