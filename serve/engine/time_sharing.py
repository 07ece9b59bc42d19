"""Shares one engine between versions in turns: one version is resident, requests for other versions wait.

The engine switches when the last request of the resident version has ended. Turns are fair: once a request waits for
another version, new requests of the resident version are admitted for one more quantum, and then queue behind it. Pure
asyncio; the switch itself is injected. There are no timers: the state advances only when a request arrives or leaves.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from core.clock import Clock
from core.errors import Unavailable
from core.messages import PolicyRef

Switch = Callable[[PolicyRef], Awaitable[None]]


class TimeSharing:
    """Laws: all running requests use the resident version; no switch happens while a request runs; each waiting request
    is admitted, gets the error of its switch, or is cancelled; no request overtakes a waiting one after its quantum."""

    def __init__(self, switch: Switch, resident: PolicyRef, *, quantum_s: float, clock: Clock) -> None:
        """`switch` makes a version resident. When it raises, the previous version must still be resident."""
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
        """Raises: the error of the switch to `ref`; Unavailable after `close`."""
        await self._enter(ref)
        try:
            yield
        finally:
            self._users -= 1
            self._advance()

    async def close(self) -> None:
        """Refuse waiting and new requests, and wait for a switch in progress."""
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
        """When no request runs, admit the waiting requests or start a switch. Idempotent."""
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
        """Admit all requests that wait for this version, wherever they are in the queue, or raise `failure` in them."""
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
