"""Draws a window, trains on it, publishes a version, and goes on: it never waits for the gate."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from actors.calls import Peer
from core.clock import Clock, SystemClock
from core.codec import decode, encode
from core.messages import PolicyRef, Published, Window
from core.metrics import Metrics
from core.store import event

DRAW_WAIT_S = 20.0


class Room(Protocol):
    """Where a window becomes a version on disk: training.room in earnest, a scripted one in tests. All calls block."""

    def open(self) -> Published:
        """Load the model; returns the base, described on disk."""
        ...

    def return_to(self, parent: Published) -> None:
        """Take the weights of that version."""
        ...

    def make(self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[], None]) -> Published:
        """Train on the window from `parent` and write version `ref`; `rest` is called after each step."""
        ...


class Trainer:
    def __init__(
        self,
        room: Room,
        store: Peer,
        buffer: Peer,
        versions: Peer,
        cpu_share: float,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self._room = room
        self._store = store
        self._buffer = buffer
        self._versions = versions
        self._cpu_share = cpu_share
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._at: PolicyRef | None = None
        self._phase = "starting"
        self._idle_s = 0.0

    async def start(self) -> None:
        """Load the model, which takes seconds, and say what the base is, for which the replicas wait."""
        base = await asyncio.to_thread(self._room.open)
        await self._versions.call("found", encode(base))

    async def run(self) -> None:
        while True:
            window = await self._draw()
            parent = decode(Published, await self._versions.call("parent"))
            if parent.ref != self._at:
                await asyncio.to_thread(self._room.return_to, parent)
                self._at = parent.ref
            published = await self._train(window, parent)
            self._phase = "publishing"
            await self._buffer.call("published", published.ref.version)
            await self._versions.call("propose", encode(published))
            self._at = published.ref

    async def stop(self) -> None: ...

    async def status(self) -> dict[str, Any]:
        return {"phase": self._phase, "at": self._at.version if self._at else None, "idle_s": self._idle_s}

    async def _draw(self) -> Window:
        """The first window that no published version was trained on."""
        self._phase = "waiting for a window"
        asked = time.monotonic()
        while True:
            last = await self._versions.call("last_window")
            newest = await self._versions.call("newest")
            body = await self._buffer.call("draw", last, newest, DRAW_WAIT_S)
            if body is not None:
                self._idle_s += time.monotonic() - asked
                return decode(Window, body)

    async def _train(self, window: Window, parent: Published) -> Published:
        self._phase = f"training on window {window.number}"
        ref: PolicyRef = await self._versions.call("take_ref")
        await self._note("training", window=window.number, version=ref.version, parent=parent.ref.version)
        started = time.monotonic()
        published = await asyncio.to_thread(self._room.make, window, ref, parent, self._rest())
        self._metrics.count("train_seconds_total", time.monotonic() - started)
        self._metrics.count("train_examples_total", len(window.examples))
        self._metrics.set("train_loss", published.stats.get("loss", 0.0))
        return published

    def _rest(self) -> Callable[[], None]:
        """After each optimiser step, sleep so long that training uses no more than its share of the time."""
        share = self._cpu_share
        last = time.monotonic()

        def rest() -> None:
            nonlocal last
            if share < 1:
                time.sleep((time.monotonic() - last) * (1 / share - 1))
            last = time.monotonic()

        return rest

    async def _note(self, kind: str, **detail: Any) -> None:
        await self._store.call("append", [event(self._clock.now(), "trainer", kind, **detail)])
