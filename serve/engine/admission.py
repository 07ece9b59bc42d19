"""Gives users priority over background work: limits how many of the engine's seats background work may hold.

A seat is one sequence that the engine decodes. vLLM's priorities only order its waiting queue and evict no running
request, so some seats must stay free for users: always `reserve` seats, and while users are active all seats but the
share `busy_share`. Plain asyncio.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from core.clock import Clock
from core.errors import ConfigError


class Admission:
    """Laws: background work never holds more than total - reserve seats. Groups get seats in order of arrival. When
    background work holds no seat, the first group is seated at once, so neither large groups nor busy users starve
    learning."""

    def __init__(self, total: int, reserve: int, busy_share: float, active_s: float, clock: Clock) -> None:
        if not 0 <= reserve < total:
            raise ConfigError(f"reserve={reserve} of {total} seats leaves background work none; keep it below {total}")
        self._most = total - reserve
        self._busy = min(math.floor(total * busy_share), self._most)
        self._active_s = active_s
        self._clock = clock
        self._held = 0
        self._users = 0
        self._last_user = -math.inf
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def background_held(self) -> int:
        return self._held

    @property
    def background_waiting(self) -> int:
        """Seats that were requested and are not granted yet."""
        return sum(k for k, _ in self._waiting)

    @property
    def users(self) -> int:
        """User requests in progress."""
        return self._users

    def limit(self) -> int:
        """Seats that background work may hold now."""
        return self._busy if self._users or self._calm_in_s() > 0 else self._most

    @contextmanager
    def user(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._last_user = self._clock.monotonic()
            self.admit()

    @asynccontextmanager
    async def background(self, k: int = 1) -> AsyncIterator[Callable[[], None]]:
        """Hold `k` seats. Each call of the yielded function gives one back early.

        Raises: ConfigError for more seats than background work may ever hold."""
        if not 1 <= k <= self._most:
            raise ConfigError(f"{k} seats requested, background work may hold 1 to {self._most}; sample fewer at once")
        await self._take(k)
        held = k

        def leave() -> None:
            nonlocal held
            if held:
                held -= 1
                self._held -= 1
                self.admit()

        try:
            yield leave
        finally:
            self._held -= held
            held = 0
            self.admit()

    def admit(self) -> None:
        """Seat waiting groups in order. Runs on every change, and `active_s` seconds after the last user left."""
        while self._waiting:
            k, seated = self._waiting[0]
            if self._held and self._held + k > self.limit():
                break
            self._waiting.popleft()
            if not seated.done():
                self._held += k
                seated.set_result(None)
        self._look_again()

    async def _take(self, k: int) -> None:
        seated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((k, seated))
        self.admit()
        try:
            await seated
        except asyncio.CancelledError:
            if (k, seated) in self._waiting:
                self._waiting.remove((k, seated))
            elif not seated.cancelled():
                self._held -= k  # seated and cancelled in the same turn of the loop
            self.admit()
            raise

    def _calm_in_s(self) -> float:
        return self._last_user + self._active_s - self._clock.monotonic()

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._users and self._calm_in_s() > 0:
            self._timer = asyncio.get_running_loop().call_later(self._calm_in_s(), self.admit)
