"""Backpressure: how many prompts may be explored now, so that learning never runs far ahead of the gate."""

from dataclasses import dataclass


@dataclass
class Backpressure:
    """Counts every leased prompt until its fate is known, and grants leases from what capacity is left.

    Laws, at every moment:

        leased   == accepted + filtered + failed + expired + outstanding
        counted  == accepted + filtered - quarantined
        capacity == max(0, (max_lag + 1 + windows_decided) * groups_per_window - (counted + outstanding))

    accepted and filtered both count every prompt ever delivered, with and without examples: a window is made of
    *explored* prompts, as the recipe was measured (256 prompts a round, those below the threshold included).

    A window is settled once, when its candidate is promoted, rejected or held (`settle`), or when it was drawn and then
    thrown away with a rejected parent (`discard`). Its prompts stay counted for good, since windows_decided already
    gave the room back: a rejection changes nothing else. Only prompts that no window has drawn yet may be
    `quarantine`d; they leave `counted`, so that others are collected in their place. Hence counted is always
    groups_per_window for each drawn window plus the prompts waiting, and capacity can neither stall nor grow.
    """

    groups_per_window: int
    max_lag: int
    windows_wanted: int | None = None
    """End after so many decided candidates: no prompt beyond these windows is leased. None runs on."""
    leased: int = 0
    accepted: int = 0
    filtered: int = 0
    failed: int = 0
    expired: int = 0
    outstanding: int = 0
    quarantined: int = 0
    windows_decided: int = 0
    windows_discarded: int = 0
    """Part of windows_decided: windows without a verdict of their own, which a run that ends collects anew."""

    def __post_init__(self) -> None:
        if self.groups_per_window < 1 or self.max_lag < 0:
            raise ValueError(
                f"groups_per_window={self.groups_per_window}, max_lag={self.max_lag}: "
                "expected at least 1 prompt a window and a lag of at least 0"
            )
        if not self.lawful:
            raise ValueError(f"{self} breaks leased == accepted + filtered + failed + expired + outstanding")

    @property
    def lawful(self) -> bool:
        ended = self.accepted + self.filtered + self.failed + self.expired
        return self.leased == ended + self.outstanding and min(self.outstanding, self.counted) >= 0

    @property
    def counted(self) -> int:
        """Prompts delivered and drawn, or waiting to be drawn."""
        return self.accepted + self.filtered - self.quarantined

    @property
    def capacity(self) -> int:
        """Prompts that may be leased now."""
        windows = self.max_lag + 1 + self.windows_decided
        if self.windows_wanted is not None:
            windows = min(windows, self.windows_wanted + self.windows_discarded)
        return max(0, windows * self.groups_per_window - (self.counted + self.outstanding))

    def lease(self, wanted: int) -> int:
        """How many of the wanted prompts may be explored; from now on they are outstanding."""
        granted = min(max(0, wanted), self.capacity)
        self.leased += granted
        self.outstanding += granted
        return granted

    def accept(self) -> None:
        """An outstanding prompt was delivered with examples."""
        self._end()
        self.accepted += 1

    def filter(self) -> None:
        """An outstanding prompt was delivered and no example of it kept; it counts towards its window all the same."""
        self._end()
        self.filtered += 1

    def fail(self) -> None:
        """An outstanding prompt could not be explored; its room is free again."""
        self._end()
        self.failed += 1

    def expire(self) -> None:
        """An outstanding prompt was not delivered in time; its room is free again."""
        self._end()
        self.expired += 1

    def quarantine(self, prompts: int) -> None:
        """Delivered prompts that no window has drawn are withdrawn, to be collected anew."""
        if not 0 <= prompts <= self.counted:
            raise ValueError(f"cannot quarantine {prompts} prompts of {self.counted} that count")
        self.quarantined += prompts

    def decide(self) -> None:
        """The candidate of one drawn window was promoted, rejected or held."""
        self.windows_decided += 1

    def discard(self) -> None:
        """One drawn window is thrown away without a verdict, because its version's parent was rejected."""
        self.windows_decided += 1
        self.windows_discarded += 1

    def _end(self) -> None:
        if self.outstanding < 1:
            raise ValueError("no prompt is outstanding: the lease has ended already; ask the replay first (duplicate)")
        self.outstanding -= 1
