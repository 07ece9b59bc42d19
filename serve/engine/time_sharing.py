"""One resident version at a time: users of it share, users of another wait until it is drained and switched.

Fair: once somebody waits for another version, new users of the resident one may still enter for a quantum, and after
that they queue behind the waiters. Pure asyncio; what a switch does is injected. No timers: who comes decides.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from core.clock import Clock
from core.errors import Unavailable
from core.messages import PolicyRef

Switch = Callable[[PolicyRef], Awaitable[None]]


class Residency:
    """Laws: users present are all of the resident version; no switch runs while one is; each waiter is admitted, gets
    the error of its switch, or leaves; nobody overtakes a waiter once its quantum is over."""

    def __init__(self, switch: Switch, resident: PolicyRef, *, quantum_s: float, clock: Clock) -> None:
        """`switch` makes a version resident. When it raises, the resident version must be what it was before."""
        self._switch = switch
        self._quantum_s = quantum_s
        self._clock = clock
        self._users = 0
        self._waiting: deque[tuple[PolicyRef, asyncio.Future[None]]] = deque()
        self._waited_from = 0.0
        self._switching: asyncio.Task[None] | None = None
        self._closed = False
        self.resident = resident

    @property
    def users(self) -> int:
        return self._users

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def using(self, ref: PolicyRef) -> AsyncIterator[None]:
        """Raises: whatever the switch to `ref` raised; Unavailable after `close`."""
        await self._enter(ref)
        try:
            yield
        finally:
            self._users -= 1
            self._advance()

    async def close(self) -> None:
        """Refuse who waits and who comes, and wait for a switch under way."""
        self._closed = True
        for _, admitted in self._waiting:
            if not admitted.done():
                admitted.set_exception(_closing())
        self._waiting.clear()
        if self._switching is not None:
            await asyncio.wait([self._switching])

    async def _enter(self, ref: PolicyRef) -> None:
        if self._closed:
            raise _closing()
        if self._may_enter(ref):
            self._users += 1
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._waited_from = self._clock.monotonic()
        self._waiting.append((ref, admitted))
        self._advance()
        try:
            await admitted
        except asyncio.CancelledError:
            self._leave_queue(ref, admitted)
            raise

    def _may_enter(self, ref: PolicyRef) -> bool:
        if ref != self.resident or self._switching is not None:
            return False
        return not self._waiting or self._clock.monotonic() < self._waited_from + self._quantum_s

    def _leave_queue(self, ref: PolicyRef, admitted: "asyncio.Future[None]") -> None:
        if (ref, admitted) in self._waiting:
            self._waiting.remove((ref, admitted))
        elif not admitted.cancelled() and admitted.exception() is None:
            self._users -= 1  # admitted and cancelled in the same turn of the loop
        self._advance()

    def _advance(self) -> None:
        """Admit or start a switch when nobody uses the resident version; idempotent."""
        if self._users or self._switching is not None or not self._waiting or self._closed:
            return
        ref, _ = self._waiting[0]
        if ref == self.resident:
            self._admit(ref)
        else:
            self._switching = asyncio.create_task(self._run_switch(ref))

    async def _run_switch(self, ref: PolicyRef) -> None:
        failure: Exception | None = None
        try:
            await self._switch(ref)
            self.resident = ref
        except Exception as error:
            failure = error
        finally:
            self._switching = None
        self._admit(ref, failure)
        self._advance()

    def _admit(self, ref: PolicyRef, failure: Exception | None = None) -> None:
        """Let everyone in who waits for this version, wherever in the queue, or tell them why not."""
        kept: deque[tuple[PolicyRef, asyncio.Future[None]]] = deque()
        for wanted, admitted in self._waiting:
            if wanted != ref:
                kept.append((wanted, admitted))
            elif admitted.done():
                continue
            elif failure is not None:
                admitted.set_exception(failure)
            else:
                self._users += 1
                admitted.set_result(None)
        self._waiting = kept
        self._waited_from = self._clock.monotonic()


def _closing() -> Unavailable:
    return Unavailable("this engine is stopping; ask another replica")
