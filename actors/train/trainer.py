"""The trainer: draws a window, trains on it, publishes a version, and repeats. It never waits for the gate."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from actors.runtime.ports import LearningPort, Part, StorePort, TrainerPort, WindowPort
from actors.runtime.statuses import TrainerStatus
from actors.train.remote_node import RemoteNode
from core.clock import Clock, Pulse, SystemClock
from core.errors import MismatchError, Overdue, ParentFell, StorageFull, Unavailable
from core.messages import PolicyRef, Published, Window
from core.metrics import Metrics
from core.store.records import event
from serve.weights.transfer import VersionFiles

log = logging.getLogger("ratchet.trainer")

DRAW_WAIT_S = 20.0
ROOM_WAIT_S = 1.0
"""Between two attempts to write a version on a full disk."""
LOOK_S = 0.5
"""Between two checks whether learning was resumed, or whether the parent of the version in training still stands."""


class Session(Protocol):
    """Turns a window into a version on disk: `training.session`, or a scripted one in tests. All calls block."""

    run_dir: Path
    """Folder below which versions are written; set before `open`."""

    def open(self) -> Published:
        """Load the model; returns the base, which is described on disk."""
        ...

    def return_to(self, parent: Published) -> None:
        """Load the weights of that version."""
        ...

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        """Train on the window from `parent` and write version `ref`. Calls `rest` after each step, with the steps done
        and all steps. The learning rate is `lr_scale` times the configured one.

        Raises: StorageFull. A second call for the same version then only writes it. What `rest` raises; the weights are
        then those of the parent."""
        ...


class Trainer(Part):
    def __init__(
        self,
        session: Session,
        store: StorePort,
        windows: WindowPort,
        learning: LearningPort,
        versions: TrainerPort,
        cpu_share: float,
        metrics: Metrics,
        clock: Clock | None = None,
        remote_node: RemoteNode | None = None,
        load_timeout_s: float = 300.0,
    ) -> None:
        """`remote_node`: for a trainer that may run on another node than the run directory. `load_timeout_s`: time
        limit for loading the model."""
        self.files = VersionFiles()
        self._remote_node = remote_node or RemoteNode(versions)
        self._load_timeout_s = load_timeout_s
        self._session = session
        self._store = store
        self._windows = windows
        self._learning = learning
        self._versions = versions
        self._cpu_share = cpu_share
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._at: PolicyRef | None = None
        self._skipped = 0
        """The newest window without an example. After a restart it is drawn, and skipped, again."""
        self._phase = "starting"
        self._step, self._steps = 0, 0
        self._idle_s = 0.0
        self._pulse = Pulse(self._clock)

    async def start(self) -> None:
        self._metrics.begin("train_seconds_total", "train_examples_total")

    async def run(self) -> None:
        await self._load()
        while True:
            window = await self._draw()
            if not window.examples:
                await self._skip(window)
                continue
            parent = await self._versions.parent()
            await self._remote_node.fetch({parent.ref.version, *_sampled_by(window)})
            if parent.ref != self._at:
                self._pulse.moved()
                await asyncio.to_thread(self._session.return_to, parent)
                self._pulse.idle()
                self._at = parent.ref
            try:
                published = await self._train(window, parent)
            except MismatchError as error:
                self._pulse.idle()
                await self._note("refused", window=window.number, why=str(error))
                await self._wait_for_resume(str(error))
                continue
            except ParentFell as error:
                self._pulse.idle()
                await self._note("abandoned", window=window.number, parent=parent.ref.version, why=str(error))
                continue
            self._phase = "publishing"
            await self._versions.propose(published, self._remote_node.node)
            await self._remote_node.prune()
            await self._windows.published(published.ref.version)
            self._at = published.ref

    async def _load(self) -> None:
        """Load the model and register the base. Runs in `run`, so that the start does not wait for it. Raises:
        Overdue."""
        elsewhere = await self._remote_node.start()
        if elsewhere is not None:
            self._session.run_dir = elsewhere
        try:
            async with asyncio.timeout(self._load_timeout_s):
                base = await asyncio.to_thread(self._session.open)
        except TimeoutError:
            raise Overdue(
                f"the trainer did not load its model within run.start_timeout_s={self._load_timeout_s:.0f}; raise it"
            ) from None
        await self._versions.found(base, self._remote_node.node)

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """Seconds since its work last made progress; 0 while it has no work."""
        return self._pulse.quiet_s

    async def status(self) -> TrainerStatus:
        at = self._at.version if self._at else None
        phase = f"{self._phase}, step {self._step} of {self._steps}" if self._steps else self._phase
        return {"phase": phase, "step": self._step, "steps": self._steps, "at": at, "idle_s": self._idle_s}

    async def _draw(self) -> Window:
        """The first window that no published version was trained on."""
        self._phase = "waiting for a window"
        asked = time.monotonic()
        while True:
            last = max(await self._versions.last_window(), self._skipped)
            newest = await self._versions.newest()
            window = await self._windows.draw(last, newest, DRAW_WAIT_S)
            if window is not None:
                self._idle_s += time.monotonic() - asked
                return window

    async def _skip(self, window: Window) -> None:
        """A window without an example makes no version: it would be its parent once more."""
        await self._note("empty", window=window.number)
        await self._windows.decided(window.number, 0, rejected=False, discarded=True)
        self._skipped = window.number

    async def _wait_for_resume(self, reason: str) -> None:
        """Pause learning until a person resumes it. Then the trainer tries the refused window again. Serving
        continues."""
        await self._learning.pause(reason)
        self._phase = "paused"
        while (await self._learning.status())["paused"] is not None:
            await asyncio.sleep(LOOK_S)

    async def _train(self, window: Window, parent: Published) -> Published:
        self._phase = f"training on window {window.number}"
        ref = await self._versions.take_ref()
        await self._note("training", window=window.number, version=ref.version, parent=parent.ref.version)
        started = time.monotonic()
        scale = await self._versions.learning_rate_scale()
        try:
            published = await self._make(window, ref, parent, scale)
        finally:
            self._step, self._steps = 0, 0
        self._metrics.count("train_seconds_total", time.monotonic() - started)
        self._metrics.count("train_examples_total", len(window.examples))
        self._metrics.set("train_loss", published.stats.get("loss", 0.0))
        if "mismatch_kl" in published.stats:
            self._metrics.set("mismatch_kl", published.stats["mismatch_kl"])
        return published

    async def _make(self, window: Window, ref: PolicyRef, parent: Published, lr_scale: float) -> Published:
        """Train and write the version. On a full disk, wait for room and write it then, without training again."""
        full_since: float | None = None
        while True:
            self._pulse.moved()
            try:
                published = await self._attempt(window, ref, parent, lr_scale)
            except StorageFull as error:
                if full_since is None:
                    full_since = self._clock.now()
                    log.error("%s. v%d waits for room", error, ref.version)
                self._pulse.idle()
                self._phase = f"waiting for room on the disk to write v{ref.version}"
                await asyncio.sleep(ROOM_WAIT_S)
            else:
                self._pulse.idle()
                if full_since is not None:
                    await self._note("disk_full", since=full_since, seconds=self._clock.now() - full_since)
                return published

    async def _attempt(self, window: Window, ref: PolicyRef, parent: Published, lr_scale: float) -> Published:
        """Raises: ParentFell after the first step that ends when the parent was rejected or rolled back."""
        fell = threading.Event()
        making = asyncio.create_task(
            asyncio.to_thread(self._session.make, window, ref, parent, self._rest(ref, parent.ref, fell), lr_scale)
        )
        while not (await asyncio.wait({making}, timeout=LOOK_S))[0]:
            with suppress(Unavailable, Overdue):  # versions is away: nothing falls meanwhile
                if not await self._versions.stands(parent.ref.version):
                    fell.set()
        return await making

    def _rest(self, ref: PolicyRef, parent: PolicyRef, fell: threading.Event) -> Callable[[int, int], None]:
        """A function that sleeps after each optimizer step, so that training uses no more than its share of the
        time."""
        share = self._cpu_share
        last = time.monotonic()

        def rest(done: int, steps: int) -> None:
            nonlocal last
            self._step, self._steps = done, steps
            if fell.is_set():
                raise ParentFell(f"{parent} fell while {ref} was trained from it, after step {done} of {steps}")
            if share < 1:
                time.sleep((time.monotonic() - last) * (1 / share - 1))
            last = time.monotonic()
            self._pulse.moved()

        return rest

    async def _note(self, kind: str, **detail: object) -> None:
        await self._store.append([event(self._clock.now(), "trainer", kind, **detail)])


def _sampled_by(window: Window) -> set[int]:
    """Versions whose weights the trainer needs: it compares its log-probabilities with those of the engine."""
    return {each.policy.version for each in window.examples if any("behaviour" in row.columns for row in each.rows)}
