"""The lineage and its writes: every change is on disk before replicas, the buffer or people see it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from actors.runtime.ports import LearningPort, StorePort, WindowPort
from actors.versions.lineage import FELL, Lineage, WindowVerdict
from core.aio import comes_true
from core.clock import Clock
from core.config import BackoffConfig
from core.errors import Overdue, Unavailable
from core.messages import Decision, Published
from core.metrics import Metrics
from core.store.facts import BaseFact, GateLedger, LineageFact
from core.store.reader import here
from core.store.records import Record, as_row, event, message
from core.store.writer import RunReader

log = logging.getLogger("ratchet.versions")

ROLLED_BACK_BY = {"the watch": "watch", "the replicas": "replicas"}


class Register:
    """State that all ports of versions share: the lineage, its writes, and its messages to the buffer."""

    def __init__(
        self,
        run_dir: Path,
        store: StorePort,
        windows: WindowPort,
        learning: LearningPort,
        metrics: Metrics,
        clock: Clock,
        backoff: BackoffConfig,
        ends: bool,
    ) -> None:
        """`ends`: the run stops by itself after `run.versions` candidates, so rejections never pause learning."""
        self.run_dir = run_dir
        self.lineage = Lineage()
        self.desired = self.lineage.slots()
        """The state that replicas should reach: the lineage's slots that are on disk."""
        self.ledger = GateLedger()
        self.changed = asyncio.Condition()
        """Notified after every write."""
        self.backoff = backoff
        self.metrics = metrics
        self.clock = clock
        self.learning = learning
        self._store = store
        self._windows = windows
        self._ends = ends
        self._unwritten: list[Record] = []
        """Records that the store has not acknowledged. Those of a failed write go out with the next one."""
        self._untold: list[WindowVerdict] = []
        """Verdicts that the buffer has not acknowledged."""
        self._one_write = asyncio.Lock()
        self._started = False

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    def check_started(self) -> None:
        if not self._started:
            raise Unavailable("the versions actor is not started yet; try again")

    async def restore(self) -> None:
        """Load the state from the run directory, if there is one."""
        reader = await asyncio.to_thread(RunReader, self.run_dir)
        base, snapshot, ledger = reader.read(BaseFact), reader.read(LineageFact), reader.read(GateLedger)
        if base is not None:
            self.lineage.base = here(Published(**dict(base)), self.run_dir)
        if snapshot is not None:
            self.lineage.restore(snapshot, reader.versions(), list(reader.all("decisions", Decision)))
            self.ledger = ledger or GateLedger()
        reader.close()
        self.desired = self.lineage.slots()
        self._meter()
        self._started = True

    async def comes_true(self, holds: Callable[[], bool], wait_s: float) -> bool:
        return await comes_true(self.changed, holds, wait_s)

    # --- writing ---

    async def keep(self, records: Sequence[Record] = ()) -> None:
        """Write the records and the lineage, then publish the desired state to replicas, so that a crash cannot lose
        which version answered users. Only one write at a time: a write that waits for disk room must not overwrite a
        newer lineage."""
        self._unwritten += records
        async with self._one_write:
            unwritten, slots = list(self._unwritten), self.lineage.slots()
            await self.append([*unwritten, self.lineage.snapshot().record()])
            del self._unwritten[: len(unwritten)]
        self._meter()
        async with self.changed:
            if slots.epoch > self.desired.epoch:
                self.desired = slots
            self.changed.notify_all()

    async def decide(self, verdicts: Sequence[WindowVerdict] = (), records: Sequence[Record] = ()) -> None:
        """Store decisions, then tell the buffer. Without arguments: finish an earlier attempt."""
        records = list(records)
        for each in verdicts:
            decision = self.lineage.decisions[each.version]
            records.append(message("decisions", str(decision.candidate), str(decision.champion), decision))
            if self.lineage.states[each.version] == "rejected":
                records.append(self.event("rejected", version=each.version, reason=decision.reason))
        self._untold += verdicts
        await self.keep(records)
        while self._untold:
            each = self._untold[0]
            await self._windows.decided(each.window, each.version, each.rejected, each.discarded)
            if self._untold and self._untold[0] is each:
                del self._untold[0]

    async def append(self, records: Sequence[Record]) -> None:
        await self._store.append([*map(as_row, records)])

    def event(self, kind: str, **detail: object) -> Record:
        return event(self.clock.now(), "versions", kind, **detail)

    def account(self, ledger: GateLedger) -> Record:
        """The record of the gate's budgets, under this lineage's champion, which may differ from the gate's."""
        self.ledger = ledger.under(self.lineage.champion)
        return self.ledger.record()

    # --- rejections ---

    async def failed(self, version: int, why: str) -> None:
        """A replica cannot prove this version: reject it."""
        verdicts = self.lineage.failed(version, why)
        await self.decide(verdicts, [self.event("proof_failed", version=version, why=why)])
        await self.slow_down()

    async def roll_back(self, version: int, why: str, by: str) -> None:
        verdicts = self.lineage.roll_back(version)
        await self.decide(verdicts, [self.rolled_back(verdicts, why, by), self.account(self.ledger)])
        await self.slow_down()

    def rolled_back(self, verdicts: Sequence[WindowVerdict], why: str, by: str) -> Record:
        self.metrics.count("rollbacks_total", by=ROLLED_BACK_BY.get(by, "hand"))
        serve, champion = self.lineage.serve.version, self.lineage.champion.version
        version, *fell = (each.version for each in verdicts)
        return self.event("rolled_back", version=version, fell=fell, reason=why, by=by, serve=serve, champion=champion)

    async def slow_down(self) -> None:
        """After `backoff.stop` rejections or rollbacks in a row: write an alert, and pause learning unless the run ends
        by itself."""
        if self.lineage.rejections < self.backoff.stop:
            return
        await self.append([self.event("alert", reason=self._why_paused())])
        if self._is_hopeless():
            await self.learning.pause(self._why_paused())

    # --- restarts ---

    async def tell_again(self) -> None:
        """After a restart, tell the buffer all verdicts again: the last ones may not have reached it."""
        for version, decision in self.lineage.decisions.items():
            if version in self.lineage.published:
                window, withdrawn = self.lineage.published[version].window, version in self.lineage.withdrawn
                await self._until_told(window, version, withdrawn, decision.reason in FELL)
        if self._is_hopeless():
            await self._until_paused()

    async def _until_told(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        """Retry until the buffer is up. It starts only after the first answer to users."""
        while True:
            with suppress(Overdue):
                return await self._windows.decided(window, version, rejected, discarded)

    async def _until_paused(self) -> None:
        while True:
            with suppress(Overdue):
                return await self.learning.pause(self._why_paused())

    def _is_hopeless(self) -> bool:
        return not self._ends and self.lineage.rejections >= self.backoff.stop

    def _why_paused(self) -> str:
        return (
            f"{self.lineage.rejections} candidates in a row were rejected; `ratchet versions` shows why. Check "
            "prompts and votes, lower learning.lr or method.sampler.temperature, then `ratchet resume`"
        )

    def _meter(self) -> None:
        self.metrics.set("rejections_in_a_row", self.lineage.rejections)
        self.metrics.set("learning_rate_scale", self.lineage.learning_rate_scale(self.backoff))
