"""Backpressure: limits the prompts that may be explored now, so that collection stays close to the gate."""

from dataclasses import dataclass


@dataclass
class Backpressure:
    """Counts every leased prompt until it is delivered, fails or expires, and grants leases within the capacity.

    Laws, at every moment:

        leased   == accepted + filtered + failed + expired + outstanding
        counted  == accepted + filtered - quarantined
        capacity == max(0, (max_lag + 1 + windows_decided) * groups_per_window - (counted + outstanding))

    `accepted` counts delivered prompts with examples, `filtered` those without. A window consists of *explored* prompts
    of both kinds, as in the measured recipe (256 prompts a round, including those below the threshold).

    Every drawn window ends once: its candidate is promoted, rejected or held (`decide`), or the window is dropped
    because its parent was rejected (`discard`). Its prompts stay in `counted`, and windows_decided adds the capacity
    for the next window, whatever the verdict. `quarantine` removes only prompts that no window has drawn; others are
    collected in their place. So `counted` is always groups_per_window for each drawn window plus the waiting prompts,
    and the capacity neither stalls nor grows without bound.
    """

    groups_per_window: int
    max_lag: int
    windows_wanted: int | None = None
    """The run ends after this many decided candidates; no prompt beyond these windows is leased. None: no end."""
    leased: int = 0
    accepted: int = 0
    filtered: int = 0
    failed: int = 0
    expired: int = 0
    outstanding: int = 0
    quarantined: int = 0
    windows_decided: int = 0
    windows_discarded: int = 0
    """The part of windows_decided without a verdict. A run with windows_wanted collects these windows again."""

    def __post_init__(self) -> None:
        if self.groups_per_window < 1 or self.max_lag < 0:
            raise ValueError(
                f"groups_per_window={self.groups_per_window}, max_lag={self.max_lag}: "
                "expected at least 1 prompt a window and a lag of at least 0; raise the setting"
            )
        if not self.lawful:
            raise ValueError(
                f"{self} breaks leased == accepted + filtered + failed + expired + outstanding; pass consistent counts"
            )

    @property
    def lawful(self) -> bool:
        ended = self.accepted + self.filtered + self.failed + self.expired
        return self.leased == ended + self.outstanding and min(self.outstanding, self.counted) >= 0

    @property
    def counted(self) -> int:
        """Delivered prompts, drawn or waiting, without the quarantined ones."""
        return self.accepted + self.filtered - self.quarantined

    @property
    def capacity(self) -> int:
        """Prompts that may be leased now."""
        windows = self.max_lag + 1 + self.windows_decided
        if self.windows_wanted is not None:
            windows = min(windows, self.windows_wanted + self.windows_discarded)
        return max(0, windows * self.groups_per_window - (self.counted + self.outstanding))

    def lease(self, wanted: int) -> int:
        """Lease up to `wanted` prompts within the capacity; returns the number leased. They are now outstanding."""
        granted = min(max(0, wanted), self.capacity)
        self.leased += granted
        self.outstanding += granted
        return granted

    def accept(self) -> None:
        """An outstanding prompt was delivered with examples."""
        self._end()
        self.accepted += 1

    def filter(self) -> None:
        """An outstanding prompt was delivered without examples. It still counts toward its window."""
        self._end()
        self.filtered += 1

    def fail(self) -> None:
        """An outstanding prompt could not be explored; its capacity is free again."""
        self._end()
        self.failed += 1

    def expire(self) -> None:
        """An outstanding prompt was not delivered in time; its capacity is free again."""
        self._end()
        self.expired += 1

    def quarantine(self, prompts: int) -> None:
        """Withdraw delivered prompts that no window has drawn; others are collected in their place."""
        if not 0 <= prompts <= self.counted:
            raise ValueError(
                f"cannot quarantine {prompts} prompts, expected 0 to {self.counted} (those that count); "
                "pass the places that Replay.quarantine returned"
            )
        self.quarantined += prompts

    def decide(self) -> None:
        """The candidate of one drawn window was promoted, rejected or held."""
        self.windows_decided += 1

    def discard(self) -> None:
        """One drawn window was dropped without a verdict, because its version's parent was rejected."""
        self.windows_decided += 1
        self.windows_discarded += 1

    def _end(self) -> None:
        if self.outstanding < 1:
            raise ValueError(
                "no prompt is outstanding, expected at least 1: the lease has already ended; "
                "let Replay.add find duplicates first"
            )
        self.outstanding -= 1
