"""The pause of learning: while it lasts, nothing is leased or drawn. A pause by people or by versions survives a
restart; one after a series of failed prompts does not."""

from collections.abc import Awaitable, Callable
from typing import TypedDict

from actors.replay.outbox import Outbox
from core.clock import Clock
from core.metrics import Metrics
from core.store.facts import Paused
from core.store.records import Record, event


class PauseStatus(TypedDict):
    paused: str | None
    paused_at: float | None
    paused_before_start: bool
    paused_itself: bool
    """The buffer paused learning: prompts failed, or gave nothing to learn."""


class Pause:
    """`tell` writes an event into the history."""

    def __init__(
        self,
        outbox: Outbox,
        tell: Callable[[Record], Awaitable[None]],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._tell = tell
        self._metrics = metrics
        self._clock = clock
        self._now: Paused | None = None
        self._before_start = False

    def __bool__(self) -> bool:
        return self._now is not None

    async def begin(self, reason: str, lasting: bool) -> None:
        if self._now is None or (lasting and not self._now.lasting):
            now = Paused(reason=reason, at=self._clock.now(), lasting=lasting)
            self._set(now)
            if lasting:
                self._outbox.add(now.record())
            await self._tell_of("paused", reason=reason)
        if lasting:
            await self._save()

    async def end(self, wake: Callable[[], Awaitable[None]]) -> None:
        """`wake`: wakes waiting calls, before the end of the pause is on disk."""
        if self._now is not None:
            self._set(None)
            self._outbox.add(Paused.cleared())
            await self._tell_of("resumed")
            await wake()
        await self._save()

    async def restore(self, found: Paused | None) -> None:
        """Take over a pause from before this start."""
        self._set(found, before_start=found is not None)
        if found is not None:
            await self._tell_of(
                "paused", reason=f"{found.reason} (since before this start; `ratchet resume` continues)"
            )

    def status(self) -> PauseStatus:
        now = self._now
        return {
            "paused": now.reason if now is not None else None,
            "paused_at": now.at if now is not None else None,
            "paused_before_start": self._before_start,
            "paused_itself": now is not None and not now.lasting,
        }

    async def _save(self) -> None:
        if Paused.NAME in self._outbox:
            await self._outbox.write(insist=True)

    def _set(self, now: Paused | None, before_start: bool = False) -> None:
        self._now, self._before_start = now, before_start
        self._metrics.set("learning_paused", float(now is not None))

    async def _tell_of(self, kind: str, **detail: str) -> None:
        await self._tell(event(self._clock.now(), "buffer", kind, **detail))
