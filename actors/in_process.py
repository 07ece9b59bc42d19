"""All parts of a run in one process, without Ray: for tests and for learning how it works. The classes are the same
as in `actors.system`."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from actors.collect.collector import Collector
from actors.evaluate.evaluator import Evaluator
from actors.people.feedback import FeedbackDesk
from actors.replay.buffer import Buffer
from actors.runtime.ports import ReplicaPort
from actors.runtime.rpc import local
from actors.storage.store import Store
from actors.train.trainer import Session, Trainer
from actors.versions.versions import Versions
from core.config import Config
from core.errors import Overdue
from core.messages import BASE, PolicyRef, Published, ReplicaReport, Window
from core.metrics import MemorySink, Metrics
from core.protocols import Policy


class SlottedPolicy(Policy, Protocol):
    """A policy in this process. `explore` is the version that collectors sample from."""

    explore: PolicyRef


class Runs(Protocol):
    """A part that the driver can start and run."""

    async def start(self) -> None: ...
    async def run(self) -> None: ...


@dataclass
class LocalReplica:
    """Adopts every desired state at once, and reports all its versions as proven."""

    versions: ReplicaPort
    policy: SlottedPolicy
    name: str = "local"

    async def start(self) -> None: ...

    async def run(self) -> None:
        epoch = -1
        while True:
            slots = await self.versions.desired(epoch, 1.0)
            epoch = slots.epoch
            self.policy.explore = slots.explore
            proven = (BASE, *(published.ref for published in slots.loaded))
            report = ReplicaReport(replica=self.name, epoch=epoch, serving=slots.serve, proven=proven)
            await self.versions.report(report)


class LocalSystem:
    """`config.collect.collectors` collectors share one policy. Only the run directory outlives this object."""

    def __init__(self, config: Config, run_dir: Path, policy: SlottedPolicy, session: Session) -> None:
        self.config = config
        self.sink = MemorySink()
        metrics = Metrics([self.sink])
        self.store = Store(str(run_dir), config.run, config.learning)
        """May be replaced before `run`."""
        store = local(self.store)
        self.buffer = Buffer(
            str(run_dir),
            store,
            config.learning,
            config.run.versions,
            metrics,
            config.method.votes,
            method=config.method,
        )
        windows, learning = local(self.buffer.windows), local(self.buffer.learning)
        plateau = config.learning.plateau
        patience, backoff = plateau.versions if plateau else None, config.learning.backoff
        self.versions = Versions(str(run_dir), store, windows, learning, metrics, patience, backoff=backoff)
        self.trainer = Trainer(
            session, store, windows, learning, local(self.versions.trainer), config.run.cpu_share, metrics
        )
        leases = local(self.buffer.collectors)
        self.collectors = [Collector(leases, config, policy) for _ in range(config.collect.collectors)]
        self.evaluator = Evaluator(str(run_dir), store, local(self.versions.gate), config, policy, metrics)
        self.feedback = FeedbackDesk(str(run_dir), store, local(self.buffer.people), config, metrics)
        self.replica: Runs = LocalReplica(local(self.versions.replicas), policy)
        """May be replaced before `run`."""
        self.beside: list[Runs] = []
        """Further parts to run, started before the first lease: for example simulated voters."""

    async def run(self, decided: int = 0, until_paused: bool = False, timeout_s: float = 60.0) -> None:
        """Run until `decided` candidates are decided and, if `until_paused`, learning is paused. Raises: Overdue; an
        ExceptionGroup with the error that ended a part."""
        await self.store.start()
        storing = asyncio.create_task(self.store.run())
        for part in (self.buffer, self.versions, self.trainer, self.evaluator, *self.collectors):
            await part.start()
        for part in self.beside:
            await part.start()
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as tasks:
                parts = (self.buffer, self.trainer, self.evaluator, self.replica, *self.collectors, *self.beside)
                running = [tasks.create_task(part.run()) for part in parts]
                while not await self._is_done(decided, until_paused):
                    await asyncio.sleep(0.02)
                await self.store.append([])  # pending events reach the disk before everything stops
                for task in running:
                    task.cancel()
        except TimeoutError:
            raise Overdue(
                f"{decided} candidates were not decided (or no pause came) within {timeout_s:.0f} s; raise timeout_s"
            ) from None
        finally:
            storing.cancel()
            with suppress(asyncio.CancelledError):
                await storing
            await self.store.stop()

    async def _is_done(self, decided: int, until_paused: bool) -> bool:
        paused = (await self.buffer.learning.status())["paused"] is not None
        versions = await self.versions.people.status()
        return versions["decided"] >= decided and not versions["owed"] and (paused or not until_paused)


@dataclass
class ScriptedSession:
    """A training session without a model: turns every window into a version after `seconds`."""

    run_dir: Path
    seconds: float = 0.0

    def open(self) -> Published:
        return Published(ref=BASE, path=str(self.run_dir), parent=BASE, window=0, fingerprint="base")

    def return_to(self, parent: Published) -> None: ...

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        time.sleep(self.seconds)
        rest(1, 1)
        stats = {"loss": 1.0 / ref.version, "examples": float(len(window.examples)), "lr_scale": lr_scale}
        return Published(
            ref=ref, path=str(self.run_dir), parent=parent.ref, window=window.number, fingerprint=str(ref), stats=stats
        )
