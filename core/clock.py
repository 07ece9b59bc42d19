"""Clocks that are passed as arguments, so that code that waits or stamps can be tested without waiting."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, for timestamps that leave the process."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never decreases. For deadlines."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Pulse:
    """How long a part has made no progress, for its supervisor. An idle part counts as healthy."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved_at: float | None = None

    def moved(self) -> None:
        """Work made progress, or began."""
        self._moved_at = self._clock.monotonic()

    def idle(self) -> None:
        """There is nothing to do."""
        self._moved_at = None

    @property
    def quiet_s(self) -> float:
        """Seconds since the last progress; 0 while idle."""
        moved_at = self._moved_at
        return 0.0 if moved_at is None else self._clock.monotonic() - moved_at


class ManualClock:
    """A clock that a test moves by hand."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        return self._now_s

    def monotonic(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds
