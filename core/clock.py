"""Time as an argument, so that whatever waits or stamps can be tested without waiting."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, for stamps that leave the process."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never run backwards, for deadlines."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class Pulse:
    """Since when a part's work has not moved on, for whoever looks after it. Nothing to do is no standstill."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved_at: float | None = None

    def moved(self) -> None:
        """Work goes on, or begins."""
        self._moved_at = self._clock.monotonic()

    def idle(self) -> None:
        """There is nothing to do."""
        self._moved_at = None

    @property
    def quiet_s(self) -> float:
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
