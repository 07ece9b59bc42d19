"""Why nothing is leased and drawn, and whether that outlives a restart: what people and versions say does, a run of
failed prompts does not."""

from collections.abc import Awaitable, Callable
from typing import Any

from actors.replay.outbox import Outbox
from actors.replay.recovery import PAUSED
from core.clock import Clock
from core.metrics import Metrics
from core.store.records import Record, event, fact


class Pause:
    """`tell` writes a line of history."""

    def __init__(
        self,
        owed: Outbox,
        tell: Callable[[Record], Awaitable[None]],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._owed = owed
        self._tell = tell
        self._metrics = metrics
        self._clock = clock
        self._now: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return self._now is not None

    async def begin(self, reason: str, lasting: bool) -> None:
        if self._now is None or (lasting and not self._now["lasting"]):
            now = {"reason": reason, "at": self._clock.now(), "lasting": lasting}
            self._set(now)
            if lasting:
                self._owed.owe(fact(PAUSED, now))
            await self._tell_of("paused", reason=reason)
        if lasting and PAUSED in self._owed:
            await self._owed.write(insist=True)

    async def end(self, woken: Callable[[], Awaitable[None]]) -> None:
        """`woken`: who waits for this hears of it before it is on disk."""
        if self._now is not None:
            self._set(None)
            self._owed.owe(fact(PAUSED, None))
            await self._tell_of("resumed")
            await woken()
        if PAUSED in self._owed:
            await self._owed.write(insist=True)

    async def restore(self, found: dict[str, Any] | None) -> None:
        """From before this start."""
        self._set(None if found is None else {**found, "earlier": True})
        if found is not None:
            reason = f"{found['reason']} (before this start; `ratchet resume` goes on)"
            await self._tell_of("paused", reason=reason)

    def status(self) -> dict[str, Any]:
        now = self._now or {}
        return {
            "paused": now.get("reason"),
            "paused_at": now.get("at"),
            "paused_before_start": now.get("earlier", False),
        }

    def _set(self, now: dict[str, Any] | None) -> None:
        self._now = now
        self._metrics.set("learning_paused", float(now is not None))

    async def _tell_of(self, kind: str, **detail: Any) -> None:
        await self._tell(event(self._clock.now(), "buffer", kind, **detail))
