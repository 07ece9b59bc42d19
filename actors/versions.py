"""The one owner of what is served. It never tells a replica what to do: it publishes what is desired, and replicas
pull it, prove it, and report. All decisions are in `actors.lineage`; this is the shell around it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.calls import Peer
from actors.lineage import PARENT_REJECTED, Lineage, Settled
from core.clock import Clock, SystemClock
from core.codec import decode, encode
from core.errors import Overdue, Unavailable
from core.messages import Decision, PolicyRef, Published, ReplicaReport
from core.metrics import Metrics
from core.store import Record, RunReader, event, fact, message

REPORT_FRESH_S = 30.0
"""A replica that has not been heard of for so long does not hold up a promotion."""


class Versions:
    def __init__(
        self,
        run_dir: str,
        store: Peer,
        buffer: Peer,
        metrics: Metrics,
        plateau: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._lineage = Lineage()
        self._store = store
        self._buffer = buffer
        self._metrics = metrics
        self._plateau = plateau
        self._clock = clock or SystemClock()
        self._changed = asyncio.Condition()
        self._reports: dict[str, tuple[ReplicaReport, float]] = {}
        self._ledger: dict[str, Any] | None = None
        self._started = False

    async def start(self) -> None:
        """Find the state that the run directory holds, if any; the base comes from the trainer, see `found`."""
        reader = await asyncio.to_thread(RunReader, self._run_dir)
        snapshot = reader.fact("lineage")
        base = reader.fact("base")
        if base is not None:
            self._lineage.base = Published.model_validate(base)
        if snapshot is not None:
            self._lineage.restore(snapshot, reader.versions(), list(reader.all("decisions", Decision)))
            self._ledger = reader.fact("ledger")
        reader.close()
        self._started = True

    async def run(self) -> None:
        """Tell the buffer again what was settled before a restart, which may not have reached it; then only answer."""
        for version, decision in self._lineage.decisions.items():
            if version in self._lineage.published:
                window = self._lineage.published[version].window
                discarded = decision.reason == PARENT_REJECTED
                await self._buffer.call("settle", window, version, decision.verdict == "reject", discarded)
        await asyncio.Event().wait()

    async def stop(self) -> None: ...

    # --- replicas ---

    async def found(self, base: bytes) -> None:
        """The trainer has written down what the base is; replicas wait for it."""
        self._check_started()
        self._lineage.base = decode(Published, base)
        await self._keep([fact("base", self._lineage.base.model_dump(mode="json"))])

    async def base(self, wait_s: float) -> bytes:
        """Raises: Overdue when the trainer has not described the base by then."""
        async with self._changed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._lineage.base is not None)
            except TimeoutError:
                raise Overdue(f"the trainer did not describe the base within {wait_s:.0f} s; see its log") from None
        assert self._lineage.base is not None
        return encode(self._lineage.base)

    async def desired(self, seen_epoch: int, wait_s: float) -> bytes:
        """The desired state, as soon as it is newer than the epoch seen, or after `wait_s`."""
        self._check_started()
        async with self._changed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._lineage.epoch > seen_epoch)
            except TimeoutError:
                pass
            return encode(self._lineage.slots())

    async def report(self, body: str) -> None:
        """Take a replica's report in; a version that all fresh replicas of its pool hold is proven."""
        self._check_started()
        report = ReplicaReport.model_validate_json(body)
        self._reports[report.replica] = (report, self._clock.monotonic())
        for version in self._lineage.undecided:
            ref = PolicyRef(version=version)
            why = next((r.failed[str(ref)] for r, _ in self._reports.values() if str(ref) in r.failed), None)
            if why is not None:
                await self._failed(version, why)
            elif self._held_by_all(ref) and self._lineage.proven(version):
                await self._keep([event(self._clock.now(), "versions", "proven", version=version)])

    # --- trainer ---

    async def parent(self) -> bytes:
        """What to train on from: the newest version that was not rejected."""
        self._check_started()
        return encode(self._lineage.parent)

    async def last_window(self) -> int:
        """The newest window that a version was trained on; 0 before the first."""
        self._check_started()
        return max((published.window for published in self._lineage.published.values()), default=0)

    async def newest(self) -> int:
        """The version in the explore slot: staleness is counted from it."""
        self._check_started()
        return self._lineage.explore.version

    async def take_ref(self) -> PolicyRef:
        self._check_started()
        ref = self._lineage.take_ref()
        await self._keep([])
        return ref

    async def propose(self, published: bytes) -> None:
        """A new version stands on disk. Proposing it again changes nothing."""
        self._check_started()
        body = decode(Published, published)
        if body.ref.version in self._lineage.published:
            return
        settled = self._lineage.propose(body)
        self._metrics.count("versions_published_total")
        records = [
            message("versions", str(body.ref), str(body.parent), body),
            event(
                self._clock.now(), "trainer", "published", version=body.ref.version, window=body.window, **body.stats
            ),
        ]
        await self._settle(settled, records)

    # --- evaluator ---

    async def next_candidate(self, wait_s: float) -> dict[str, Any] | None:
        """The oldest proven undecided version with the champion to weigh it against, or None after `wait_s`."""
        self._check_started()
        async with self._changed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._lineage.candidate is not None)
            except TimeoutError:
                return None
            candidate = self._lineage.candidate
            assert candidate is not None
            return {"candidate": candidate, "champion": self._lineage.champion, "ledger": self._ledger}

    async def decide(self, body: bytes, ledger: dict[str, Any]) -> None:
        """The gate's word. A decision on a version that was decided meanwhile (its parent fell) is dropped."""
        self._check_started()
        decision = decode(Decision, body)
        if self._lineage.states.get(decision.candidate.version) != "proven":
            # the count of candidates stands; a champion that this decision would have made does not
            self._ledger = {**ledger, "champion": self._lineage.champion.model_dump(mode="json")}
            return await self._keep([fact("ledger", self._ledger)])
        self._ledger = ledger
        settled = self._lineage.decide(decision)
        self._metrics.count("verdicts_total", verdict=decision.verdict)
        detail = decision.model_dump(mode="json", exclude={"candidate", "champion"})
        records = [
            message("decisions", str(decision.candidate), str(decision.champion), decision),
            fact("ledger", ledger),
            event(
                self._clock.now(),
                "versions",
                "decided",
                version=decision.candidate.version,
                champion=decision.champion.version,
                **detail,
            ),
        ]
        await self._settle(settled, records)

    async def weighed(self) -> None:
        """The evaluator is done with a candidate, crown included: time to see whether learning still gains anything."""
        self._check_started()
        if self._plateau is not None and self._lineage.without_gain >= self._plateau:
            reason = f"{self._lineage.without_gain} candidates in a row brought no gain"
            await self._buffer.call("pause", reason)

    async def crown(self, version: int, ledger: dict[str, Any]) -> None:
        """A promoted version has shown that it is better than the champion, and takes its place."""
        self._check_started()
        self._lineage.crown(version)
        self._ledger = ledger
        await self._keep([fact("ledger", ledger), event(self._clock.now(), "versions", "crowned", version=version)])

    async def reported(self, version: int) -> None:
        """The report on this version is done; replicas may unload it."""
        self._check_started()
        self._lineage.reported(version)
        await self._keep([])

    # --- people ---

    async def status(self) -> dict[str, Any]:
        slots = self._lineage.slots()
        return {
            "slots": {
                "serve": slots.serve.version,
                "explore": slots.explore.version,
                "champion": slots.champion.version,
                "candidate": slots.candidate.version if slots.candidate else None,
            },
            "epoch": slots.epoch,
            "states": {str(v): state for v, state in sorted(self._lineage.states.items())},
            "decided": self._lineage.decided,
            "without_gain": self._lineage.without_gain,
            "replicas": {
                name: {"serving": r.serving.version, "epoch": r.epoch, "failed": r.failed, **r.counters}
                for name, (r, _) in self._reports.items()
            },
        }

    async def forget_plateau(self) -> None:
        """Learning was resumed by hand: count anew."""
        self._check_started()
        self._lineage.without_gain = 0
        await self._keep([])

    # --- inside ---

    def _check_started(self) -> None:
        if not self._started:
            raise Unavailable("the versions actor is not started yet; try again")

    def _held_by_all(self, ref: PolicyRef) -> bool:
        now = self._clock.monotonic()
        fresh = [r for r, at in self._reports.values() if now - at < REPORT_FRESH_S or r.epoch >= self._lineage.epoch]
        weighing = [r for r in fresh if r.pool != "serving"]
        return bool(weighing) and all(ref in r.proven for r in weighing)

    async def _failed(self, version: int, why: str) -> None:
        settled = self._lineage.failed(version, why)
        failed = event(self._clock.now(), "versions", "proof_failed", version=version, why=why)
        await self._settle(settled, [failed])

    async def _settle(self, settled: Sequence[Settled], records: list[Record]) -> None:
        """Make a change of the lineage durable, tell the buffer, and wake whoever waits for it."""
        for each in settled:
            decision = self._lineage.decisions[each.version]
            records.append(message("decisions", str(decision.candidate), str(decision.champion), decision))
            if each.rejected:
                records.append(
                    event(self._clock.now(), "versions", "rejected", version=each.version, reason=decision.reason)
                )
        await self._keep(records)
        for each in settled:
            await self._buffer.call("settle", each.window, each.version, each.rejected, each.discarded)

    async def _keep(self, records: list[Record]) -> None:
        await self._store.call("append", [*records, fact("lineage", self._lineage.snapshot())])
        async with self._changed:
            self._changed.notify_all()
