"""The one owner of what is served. It never tells a replica what to do: it publishes what is desired, and replicas
pull it, prove it, and report. All decisions are in `actors.versions.lineage`; this is the shell around it."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors.runtime.rpc import Peer
from actors.versions.lineage import FELL, Due, Held, Lineage, Settled
from actors.versions.pruning import Folders
from actors.versions.replicas import Replicas
from actors.waiting import comes_true
from core.clock import Clock, SystemClock
from core.codec import decode, encode
from core.config import BackoffConfig
from core.errors import Overdue, Unavailable, VersionError
from core.messages import Decision, PolicyRef, Published, ReplicaReport
from core.metrics import Metrics
from core.store.records import Record, event, fact, message
from core.store.writer import RunReader, here
from serve.weights.transfer import VersionFiles, WeightsTransfer
from training.gate.gate import GateLedger

log = logging.getLogger("ratchet.versions")

REPORT_WAIT_S = 5.0
"""A replica goes on without an answer after that: a store that waits for room on the disk keeps no replica waiting."""
ROLLED_BACK_BY = {"the watch": "watch", "the replicas": "replicas"}


class Versions(VersionFiles):
    def __init__(
        self,
        run_dir: str,
        store: Peer,
        buffer: Peer,
        metrics: Metrics,
        plateau: int | None = None,
        clock: Clock | None = None,
        backoff: BackoffConfig | None = None,
        ends: bool = False,
        keep: int | None = None,
        transfer: WeightsTransfer | None = None,
    ) -> None:
        """`ends`: the run stops by itself after so many candidates, so learning is never paused for good. `keep`:
        run.retention.versions. `transfer`: brings a version here that was written on the trainer's node."""
        self._run_dir = Path(run_dir)
        self._lineage = Lineage()
        self._desired = self._lineage.slots()
        """What replicas are to reach: the lineage's slots as the store has them."""
        self._store = store
        self._buffer = buffer
        self._metrics = metrics
        self._plateau = plateau
        self._backoff = backoff or BackoffConfig()
        self._ends = ends
        self._clock = clock or SystemClock()
        self._changed = asyncio.Condition()
        self._replicas = Replicas(self._clock)
        self._ledger: dict[str, Any] | None = None
        self._folders = Folders(self._run_dir / "versions", self._lineage, keep)
        self._considering: set[asyncio.Task[None]] = set()
        self._owed: list[Record] = []
        """What the store has yet to take; a write that it refused goes with the next."""
        self._untold: list[Settled] = []
        """What the buffer has yet to hear."""
        self._one_write = asyncio.Lock()
        self._transfer = transfer
        self._one_arrival = asyncio.Lock()
        self._started = False

    async def start(self) -> None:
        """Find the state that the run directory holds, if any; the base comes from the trainer, see `found`."""
        reader = await asyncio.to_thread(RunReader, self._run_dir)
        snapshot = reader.fact("lineage")
        base = reader.fact("base")
        if base is not None:
            self._lineage.base = here(Published.model_validate(base), self._run_dir)
        if snapshot is not None:
            self._lineage.restore(snapshot, reader.versions(), list(reader.all("decisions", Decision)))
            self._ledger = reader.fact("ledger")
        reader.close()
        self._desired = self._lineage.slots()
        self._metrics.begin("versions_published_total", "verdicts_total", "rollbacks_total")
        self._meter()
        self._replicas.listen()
        self._started = True

    async def run(self) -> None:
        """Tell the buffer again what was settled before a restart, which may not have reached it; then only answer."""
        for version, decision in self._lineage.decisions.items():
            if version in self._lineage.published:
                window = self._lineage.published[version].window
                withdrawn, discarded = version in self._lineage.withdrawn, decision.reason in FELL
                await self._tell_buffer("settle", window, version, withdrawn, discarded)
        if self._hopeless():
            await self._tell_buffer("pause", self._despair())
        await self._prune_for_ever()

    async def _tell_buffer(self, method: str, *arguments: Any) -> None:
        """However long it takes the buffer to come up: users may be waiting for the first answer still."""
        while True:
            with suppress(Overdue):
                return await self._buffer.call(method, *arguments)

    async def stop(self) -> None: ...

    # --- replicas ---

    async def node(self) -> str:
        """Where the run directory lies; empty without Ray."""
        return self._transfer.node if self._transfer is not None else ""

    async def found(self, base: bytes, node: str = "") -> None:
        """The trainer has written down, on its node, what the base is; replicas wait for it."""
        self._check_started()
        self._lineage.base = await self._at_home(decode(Published, base), node)
        await self._keep([fact("base", self._lineage.base.model_dump(mode="json"))])

    async def base(self, wait_s: float) -> bytes:
        """Raises: Overdue when the trainer has not described the base by then."""
        if not await comes_true(self._changed, lambda: self._lineage.base is not None, wait_s):
            raise Overdue(f"the trainer did not describe the base within {wait_s:.0f} s; see its log")
        assert self._lineage.base is not None
        return encode(self._lineage.base)

    async def desired(self, seen_epoch: int, wait_s: float) -> bytes:
        """The desired state, as soon as it is newer than the epoch seen, or after `wait_s`."""
        self._check_started()
        await comes_true(self._changed, lambda: self._desired.epoch > seen_epoch, wait_s)
        return encode(self._desired)

    async def report(self, body: str) -> None:
        """Take a replica's report in; a version that all fresh replicas of its pool hold is proven."""
        self._check_started()
        self._replicas.take(ReplicaReport.model_validate_json(body))
        task = asyncio.create_task(self._consider())
        self._considering.add(task)
        task.add_done_callback(self._considered)
        done, _ = await asyncio.wait({task}, timeout=REPORT_WAIT_S)
        if done:
            task.result()

    def _considered(self, task: asyncio.Task[None]) -> None:
        self._considering.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("taking a report in failed: %r", task.exception())

    async def _consider(self) -> None:
        for version in self._lineage.undecided:
            ref = PolicyRef(version=version)
            why = self._replicas.why_failed(ref)
            if why is not None:
                await self._failed(version, why)
            elif self._replicas.all_hold(ref, self._lineage.epoch) and self._lineage.proven(version):
                await self._keep([self._event("proven", version=version)])
        why = self._replicas.why_unservable(self._lineage.serve)
        if why is not None:  # also during a hold: nobody would be answered at all
            await self._roll_back(self._lineage.serve.version, f"no replica can prove it: {why}", by="the replicas")

    async def trouble(self, replica: str, kind: str, why: str) -> None:
        """A replica says what is about to end it."""
        await self._keep([self._event(kind, replica=replica, why=why)])

    # --- trainer ---

    async def parent(self) -> bytes:
        """What to train on from: the newest version that was not rejected."""
        self._check_started()
        return encode(self._lineage.parent)

    async def last_window(self) -> int:
        """The newest window that a version was trained on; 0 before the first."""
        self._check_started()
        return max((published.window for published in self._lineage.published.values()), default=0)

    async def learning_rate_scale(self) -> float:
        """Below 1 after several rejections in a row."""
        self._check_started()
        return self._lineage.learning_rate_scale(self._backoff)

    async def newest(self) -> int:
        """The version in the explore slot: staleness is counted from it."""
        self._check_started()
        return self._lineage.explore.version

    async def take_ref(self) -> PolicyRef:
        self._check_started()
        ref = self._lineage.take_ref()
        await self._keep([])
        return ref

    async def described(self, version: int) -> bytes | None:
        """A version by its number, and where its folder lies; None when it is not known, or pruned."""
        self._check_started()
        if version == 0:
            return encode(self._lineage.base) if self._lineage.base is not None else None
        if version not in self._lineage.published or self._folders.is_pruned(version):
            return None
        return encode(self._lineage.published[version])

    async def propose(self, published: bytes, node: str = "") -> None:
        """A new version stands on the disk of its trainer's node. Proposing it again changes nothing.

        Raises: Unavailable when it cannot be brought here now; StorageFull; ArtifactError when it is damaged there."""
        self._check_started()
        body = decode(Published, published)
        if body.ref.version not in self._lineage.published:
            body = await self._at_home(body, node)
        if body.ref.version in self._lineage.published:
            return await self._settle([], [])  # also what an earlier try owes
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
        if not await comes_true(self._changed, lambda: self._lineage.candidate is not None, wait_s):
            return None
        candidate = self._lineage.candidate
        assert candidate is not None
        return {"candidate": candidate, "champion": self._lineage.champion, "ledger": self._ledger}

    async def decide(self, body: bytes, ledger: dict[str, Any], kept: dict[str, Any] | None = None) -> bool:
        """The gate's word, and facts by their names that stand on disk with it or not at all; False when it was
        dropped, because the version was decided meanwhile (its parent fell). The same word again changes nothing.

        Raises: Unavailable while the version is proven anew, after this actor died."""
        self._check_started()
        decision = decode(Decision, body)
        version = decision.candidate.version
        if self._lineage.decisions.get(version) == decision:
            await self._settle([], [])  # what an earlier try owes
            return True
        if self._lineage.states.get(version) == "published":  # since this actor died
            raise Unavailable(f"v{version} is being proven anew; try again")
        if self._lineage.states.get(version) != "proven" or decision.champion != self._lineage.champion:
            # the count of candidates stands; a champion that this decision would have made does not
            await self._keep([self._account(ledger)])
            return False
        settled = self._lineage.decide(decision)
        self._metrics.count("verdicts_total", verdict=decision.verdict)
        detail = decision.model_dump(mode="json", exclude={"candidate", "champion"})
        decided = self._event(
            "decided", version=version, champion=decision.champion.version, standing=decision.standing, **detail
        )
        await self._settle(
            settled,
            [
                message("decisions", str(decision.candidate), str(decision.champion), decision),
                self._account(ledger),
                decided,
                *(fact(name, value) for name, value in (kept or {}).items()),
            ],
        )
        if decision.verdict == "reject":
            await self._rejected_again()
        return True

    async def weighed(self) -> None:
        """The evaluator is done with a candidate, crown included: time to see whether learning still gains anything."""
        self._check_started()
        if self._plateau is not None and self._lineage.without_gain >= self._plateau:
            reason = f"{self._lineage.without_gain} candidates in a row brought no gain"
            await self._buffer.call("pause", reason)

    async def crown(self, version: int, over: int, ledger: dict[str, Any]) -> None:
        """A promoted version has shown that it is better than the champion `over`, and takes its place, now or when a
        hold ends. It does not when one of the two was rolled back meanwhile."""
        self._check_started()
        stands = self._lineage.champion.version == over and version not in self._lineage.withdrawn
        if not stands or self._lineage.states.get(version) != "promoted":
            return await self._keep([self._account(ledger)])
        self._lineage.crown(version)
        standing = self._lineage.decisions[version].standing
        await self._keep([self._account(ledger), self._event("crowned", version=version, standing=standing)])

    async def call_back(self, version: int, reason: str) -> None:
        """A watch found a served version wanting: users get the champion again, after the hold if there is one. The
        evaluator's watch on probes calls this; one on live signals (votes of people, graded traffic) would too."""
        self._check_started()
        waiting = self._lineage.waiting
        if waiting is not None and waiting.version == version:  # for a hold to end: nobody is answered by it yet
            return await self._roll_back(version, reason, by="the watch")
        if self._lineage.serve.version != version:
            return
        if self._lineage.held is not None:
            self._lineage.due = Due(version, reason)
            say = f"v{version} is served and {reason}, but serving is held; `ratchet rollback v{version}` ends it now"
            return await self._keep([self._event("alert", reason=say)])
        await self._roll_back(version, reason, by="the watch")

    async def reported(self, version: int) -> None:
        """The report on this version is done; replicas may unload it."""
        self._check_started()
        self._lineage.reported(version)
        await self._keep([])

    # --- people ---

    async def promote(self, version: int, by: str, why: str) -> dict[str, Any]:
        """Serve a proven version whatever the gate said. Raises: VersionError."""
        self._check_started()
        if version in self._lineage.published and self._folders.is_pruned(version):
            raise VersionError(f"v{version} is pruned: its folder is gone; restore it, or raise run.retention.versions")
        before = self._lineage.serve.version
        settled = self._lineage.promote_by_hand(version, f"promoted by {by}: {why}")
        told = self._event("promoted_by_hand", version=version, before=before, by=by, reason=why)
        await self._settle(settled, [told])
        return {"serve": version, "before": before}

    async def rollback(self, version: int, by: str, why: str) -> dict[str, Any]:
        """Stop serving a version, for good unless it is promoted by hand again. Raises: VersionError."""
        self._check_started()
        if version == 0:
            raise VersionError("there is nothing below the base to roll back to")
        before = self._lineage.serve.version
        await self._roll_back(version, why, by)
        return {"serve": self._lineage.serve.version, "before": before}

    async def hold(self, by: str, why: str) -> dict[str, Any]:
        """Nothing is activated until `release`. Raises: VersionError when it is held already."""
        self._check_started()
        self._lineage.hold(Held(by, why, self._clock.now()))
        serve = self._lineage.serve.version
        await self._keep([self._event("serving_held", serve=serve, by=by, reason=why)])
        return {"serve": serve}

    async def release(self, by: str, why: str) -> dict[str, Any]:
        """End the hold; what was decided meanwhile takes effect. Raises: VersionError when nothing is held."""
        self._check_started()
        settled, waiting, due = self._lineage.release()
        records = [
            self._event("serving_released", serve=self._lineage.serve.version, by=by, reason=why),
            self._account(self._ledger),
        ]
        if due is not None:
            records.append(self._told_rolled_back(settled, due.why, "the watch"))
        await self._settle(settled, records)
        return {"serve": self._lineage.serve.version, "took_effect": waiting.version if waiting else None}

    async def quiet_s(self) -> float:
        """An answer is all that tells that its loop turns."""
        return 0.0

    async def status(self) -> dict[str, Any]:
        slots = self._lineage.slots()
        return {
            "owed": len(self._owed),
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
            "standing": self._standing(),
            "rejections": self._lineage.rejections,
            "learning_rate_scale": self._lineage.learning_rate_scale(self._backoff),
            "held": asdict(self._lineage.held) if self._lineage.held else None,
            "waiting": self._lineage.waiting.version if self._lineage.waiting else None,
            "reporting": sorted(set(self._lineage.reporting) - set(self._lineage.undecided)),
            "replicas": self._replicas.status(),
        }

    async def forget_plateau(self) -> None:
        """Learning was resumed by hand: count anew, rejections too."""
        self._check_started()
        self._lineage.without_gain = 0
        self._lineage.rejections = 0
        await self._keep([])

    # --- inside ---

    def _check_started(self) -> None:
        if not self._started:
            raise Unavailable("the versions actor is not started yet; try again")

    async def _at_home(self, published: Published, node: str) -> Published:
        """The version as it lies in the run directory, on disk before anybody is told of it."""
        if self._transfer is None or not node or node == self._transfer.node:
            return published
        to = (self._run_dir / "versions" / Path(published.path).name).absolute()
        async with self._one_arrival:
            return await self._transfer.bring(published, to)

    async def _prune_for_ever(self) -> None:
        """Remove the folders of versions that nobody can need, whenever something was decided."""
        while True:
            seen = self._lineage.epoch
            gone = await self._folders.prune()
            if gone:
                await self._store.call("append", [self._event("pruned", versions=gone)])
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._lineage.epoch != seen)

    async def _failed(self, version: int, why: str) -> None:
        settled = self._lineage.failed(version, why)
        await self._settle(settled, [self._event("proof_failed", version=version, why=why)])
        await self._rejected_again()

    async def _roll_back(self, version: int, why: str, by: str) -> None:
        settled = self._lineage.roll_back(version)
        records = [self._told_rolled_back(settled, why, by), self._account(self._ledger)]
        await self._settle(settled, records)
        await self._rejected_again()

    def _told_rolled_back(self, settled: Sequence[Settled], why: str, by: str) -> Record:
        self._metrics.count("rollbacks_total", by=ROLLED_BACK_BY.get(by, "hand"))
        serve, champion = self._lineage.serve.version, self._lineage.champion.version
        version, *fell = (each.version for each in settled)
        return self._event("rolled_back", version=version, fell=fell, reason=why, by=by, serve=serve, champion=champion)

    async def _rejected_again(self) -> None:
        """After a rejection or a rollback: the next versions learn more slowly, and at last learning pauses."""
        if self._lineage.rejections < self._backoff.stop:
            return
        await self._store.call("append", [self._event("alert", reason=self._despair())])
        if self._hopeless():
            await self._buffer.call("pause", self._despair())

    def _hopeless(self) -> bool:
        return not self._ends and self._lineage.rejections >= self._backoff.stop

    def _despair(self) -> str:
        return (
            f"{self._lineage.rejections} candidates in a row were rejected; `ratchet versions` says why each: look at "
            "prompts and votes, lower learning.lr or method.sampler.temperature, then `ratchet resume`"
        )

    def _account(self, ledger: dict[str, Any] | None) -> Record:
        """The gate's budgets under the champion that stands here, whatever the gate took for the champion."""
        known = GateLedger.model_validate(ledger) if ledger else GateLedger()
        self._ledger = known.under(self._lineage.champion).model_dump(mode="json")
        return fact("ledger", self._ledger)

    def _standing(self) -> str:
        """What the served version's place rests on."""
        serve = self._lineage.serve.version
        return "base" if serve == 0 else self._lineage.standing(serve)

    def _event(self, kind: str, **detail: Any) -> Record:
        return event(self._clock.now(), "versions", kind, **detail)

    async def _settle(self, settled: Sequence[Settled], records: list[Record]) -> None:
        """Make a change of the lineage durable, tell the buffer, and wake whoever waits for it."""
        for each in settled:
            decision = self._lineage.decisions[each.version]
            records.append(message("decisions", str(decision.candidate), str(decision.champion), decision))
            if self._lineage.states[each.version] == "rejected":
                records.append(self._event("rejected", version=each.version, reason=decision.reason))
        self._untold += settled
        await self._keep(records)
        while self._untold:
            each = self._untold[0]
            await self._buffer.call("settle", each.window, each.version, each.rejected, each.discarded)
            if self._untold and self._untold[0] is each:
                del self._untold[0]

    def _meter(self) -> None:
        self._metrics.set("rejections_in_a_row", self._lineage.rejections)
        self._metrics.set("learning_rate_scale", self._lineage.learning_rate_scale(self._backoff))

    async def _keep(self, records: list[Record]) -> None:
        """On disk first, then desired: a crash cannot forget what users were answered by. One write at a time, so that
        one that waits for room never overwrites a newer lineage."""
        self._owed += records
        async with self._one_write:
            owed, slots = list(self._owed), self._lineage.slots()
            await self._store.call("append", [*owed, fact("lineage", self._lineage.snapshot())])
            del self._owed[: len(owed)]
        self._meter()
        async with self._changed:
            if slots.epoch > self._desired.epoch:
                self._desired = slots
            self._changed.notify_all()
