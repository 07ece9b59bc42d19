"""The replay buffer: leases places in the prompt source, takes what exploring them gave, and hands out windows.

What is here is a view; the truth is in the store. A delivery is acknowledged when the store has it on disk. All
bookkeeping is in training.throttle and training.replay; this is the shell around them.
"""

import asyncio
import heapq
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.calls import Peer
from core.clock import Clock, SystemClock
from core.codec import decode_batch, encode
from core.config import LearningConfig
from core.errors import Unavailable
from core.messages import Lease, Outcome
from core.metrics import Metrics
from core.store import RunReader, event, fact, outcome_records
from training.replay import Replay
from training.throttle import Throttle

WINDOW = "window:"


@dataclass(frozen=True)
class Leased:
    lease_id: str
    expires_at: float


class Buffer:
    def __init__(
        self,
        run_dir: str,
        store: Peer,
        learning: LearningConfig,
        windows_wanted: int | None,
        metrics: Metrics,
        clock: Clock | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._learning = learning
        self._store = store
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._throttle = Throttle(learning.groups_per_window, learning.max_lag, windows_wanted)
        self._replay = Replay(learning.groups_per_window, learning.replay_windows, learning.max_lag)
        self._outstanding: dict[int, Leased] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._returned: deque[int] = deque()
        self._next_place = 0
        self._settled: set[int] = set()
        self._failures = 0
        self._paused: str | None = None
        self._shares: deque[float] = deque(maxlen=learning.groups_per_window)
        self._tokens = 0
        self._lag = 0
        self._changed = asyncio.Condition()
        self._started = False

    async def start(self) -> None:
        """Rebuild the view from what the store holds."""
        await asyncio.to_thread(self._restore)
        self._started = True

    async def run(self) -> None:
        """Take back what was leased and not delivered in time."""
        while True:
            await self._expire()
            soonest = self._deadlines[0][0] if self._deadlines else self._clock.monotonic() + self._learning.lease_s
            await asyncio.sleep(max(0.5, soonest - self._clock.monotonic()))

    async def stop(self) -> None: ...

    # --- collectors ---

    async def lease(self, wanted: int, wait_s: float) -> bytes | None:
        """Up to so many places to explore, as soon as there is any room; None after `wait_s`."""
        self._check_started()
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._paused is None and self._throttle.capacity > 0)
            granted = 0 if self._paused is not None else self._throttle.lease(wanted)
        if granted == 0:
            return None
        expires_at = self._clock.monotonic() + self._learning.lease_s
        lease = Lease(id=uuid.uuid4().hex, places=tuple(self._take_places(granted)), expires_at=expires_at)
        for place in lease.places:
            self._outstanding[place] = Leased(lease.id, expires_at)
            heapq.heappush(self._deadlines, (expires_at, place, lease.id))
        return encode(lease)

    async def deliver(self, batch: bytes) -> list[str]:
        """Take outcomes in; each is `accepted`, `filtered`, `failed`, `duplicate`, `stale` or `expired`. All but the
        last are on disk when this returns. Delivering again changes nothing."""
        self._check_started()
        outcomes = decode_batch(Outcome, batch)
        held = {o.place: self._outstanding.pop(o.place) for o in outcomes if self._is_outstanding(o)}
        try:
            await self._keep([outcome for outcome in outcomes if outcome.place in held])
        except BaseException:  # whatever kept it from being acknowledged, the lease runs on
            self._outstanding.update(held)
            raise
        results = [self._take(outcome) if outcome.place in held else "expired" for outcome in outcomes]
        if self._failures >= self._learning.groups_per_window:
            last = next((outcome.failure for outcome in reversed(outcomes) if outcome.failure), "unknown")
            await self.pause(f"{self._failures} prompts in a row failed, the last: {last}")
            self._failures = 0
        await self._wake()
        return results

    # --- trainer ---

    async def draw(self, after: int, newest: int, wait_s: float) -> bytes | None:
        """The window after number `after`: drawn now if it is full, or again if a trainer died over it; None after
        `wait_s`. `newest` is the version in the explore slot, from which staleness is counted."""
        self._check_started()
        again = self._replay.again(after + 1)
        if again is not None:
            return encode(again)
        async with self._changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._replay.ready() and self._paused is None)
            again = self._replay.again(after + 1)  # another draw may have taken it while this one waited
            if again is not None:
                return encode(again)
            window = self._replay.draw(newest) if self._paused is None else None
        if window is None:
            return None
        places = self._replay.drawn_places(window.number)
        now = self._clock.now()
        records = [
            fact(f"{WINDOW}{window.number}", {"places": places, "newest": newest}),
            event(now, "buffer", "drawn", window=window.number, prompts=len(places), examples=len(window.examples)),
        ]
        await self._store.call("append", records)
        self._metrics.count("windows_drawn_total")
        new = set(window.group_ids)
        lags = [self._replay.lag(e.policy.version, newest) for e in window.examples if e.group_id in new]
        self._lag = max(lags, default=0)
        self._metrics.set("lag_versions", self._lag)
        return encode(window)

    # --- versions ---

    async def published(self, version: int) -> None:
        """Staleness counts one version more."""
        self._check_started()
        self._replay.publish(version)

    async def settle(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        """The candidate made of this window is decided; a rejected one's samples are quarantined. Idempotent."""
        self._check_started()
        if rejected:
            withdrawn = self._replay.quarantine(version)
            self._throttle.quarantine(len(withdrawn.places))
            self._replay.quarantine_window(window)
        if window not in self._settled:
            self._settled.add(window)
            if discarded:
                self._throttle.discard()
            else:
                self._throttle.settle()
            facts = [fact(f"settled:{window}", {"version": version, "rejected": rejected, "discarded": discarded})]
            await self._store.call("append", facts)
        await self._wake()

    # --- people ---

    async def pause(self, reason: str) -> None:
        """No more leases and draws until `resume`; what is in flight is still taken."""
        self._check_started()
        if self._paused is None:
            self._paused = reason
            await self._store.call("append", [event(self._clock.now(), "buffer", "paused", reason=reason)])

    async def resume(self) -> None:
        self._check_started()
        if self._paused is not None:
            self._paused = None
            await self._store.call("append", [event(self._clock.now(), "buffer", "resumed")])
            await self._wake()

    async def status(self) -> dict[str, Any]:
        counts = self._replay.counts()
        t = self._throttle
        return {
            "paused": self._paused,
            "waiting": counts.prompts_waiting,
            "examples": counts.examples_waiting,
            "windows_drawn": counts.windows_drawn,
            "windows_settled": t.windows_settled,
            "capacity": t.capacity,
            "leased": t.leased,
            "outstanding": t.outstanding,
            "accepted": t.accepted,
            "filtered": t.filtered,
            "failed": t.failed,
            "expired": t.expired,
            "quarantined": counts.quarantined_prompts,
            "stale_examples": counts.stale_examples,
            "lag": self._lag,
            "vote_share": sum(self._shares) / len(self._shares) if self._shares else None,
            "tokens": self._tokens,
        }

    # --- inside ---

    def _check_started(self) -> None:
        if not self._started:
            raise Unavailable("the buffer is not started yet; try again")

    def _is_outstanding(self, outcome: Outcome) -> bool:
        leased = self._outstanding.get(outcome.place)
        return leased is not None and leased.lease_id == outcome.lease_id

    def _take_places(self, n: int) -> list[int]:
        places = [self._returned.popleft() for _ in range(min(n, len(self._returned)))]
        fresh = n - len(places)
        places += range(self._next_place, self._next_place + fresh)
        self._next_place += fresh
        return places

    async def _keep(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            await self._store.call("append", [record for outcome in outcomes for record in outcome_records(outcome)])

    def _take(self, outcome: Outcome) -> str:
        """Count a stored outcome. A place is used once: what is withdrawn is made up for by the next prompts."""
        result = self._replay.add(outcome)
        self._failures = self._failures + 1 if result == "failed" else 0
        self._tokens += outcome.tokens
        self._shares.extend(scored.verdict.share for scored in outcome.scored)
        match result:
            case "accepted":
                self._throttle.accept()
            case "filtered" | "duplicate":
                self._throttle.filter() if result == "filtered" else self._throttle.fail()
            case "failed":
                self._throttle.fail()
            case "stale":
                self._throttle.accept()
                self._throttle.quarantine(1)
        self._metrics.count("prompts_total", result=result)
        self._metrics.count("candidates_total", sum(len(scored.group.candidates) for scored in outcome.scored))
        for vote in outcome.votes:
            self._metrics.count("votes_total", by=vote.by)
        for scored in outcome.scored:
            self._metrics.observe("vote_share", scored.verdict.share)
        return result

    async def _expire(self) -> None:
        now = self._clock.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, place, lease_id = heapq.heappop(self._deadlines)
            leased = self._outstanding.get(place)
            if leased is None or leased.lease_id != lease_id:
                continue
            del self._outstanding[place]
            self._throttle.expire()
            self._returned.append(place)
            self._metrics.count("prompts_total", result="expired")
        await self._wake()

    async def _wake(self) -> None:
        counts = self._replay.counts()
        self._metrics.set("buffer_groups", counts.prompts_waiting)
        self._metrics.set("buffer_examples", counts.examples_waiting)
        self._metrics.set("outstanding_leases", len(self._outstanding))
        async with self._changed:
            self._changed.notify_all()

    def _restore(self) -> None:
        reader = RunReader(self._run_dir)
        outcomes = list(reader.outcomes())
        drawn = {int(name.removeprefix(WINDOW)): body for name, body in reader.facts(WINDOW).items()}
        settled = {int(name.removeprefix("settled:")): body for name, body in reader.facts("settled:").items()}
        rejected = {window: body["version"] for window, body in settled.items() if body["rejected"]}
        versions = [published.ref.version for published in reader.versions()]
        reader.close()
        self._replay.restore(
            outcomes,
            drawn={number: body["places"] for number, body in drawn.items()},
            quarantined=rejected.values(),
            quarantined_windows=rejected,
            versions=versions,
            newest_at_draw={number: body["newest"] for number, body in drawn.items()},
        )
        self._tokens = sum(outcome.tokens for outcome in outcomes)
        self._settled = set(settled)
        self._recount(outcomes, settled)

    def _recount(self, outcomes: list[Outcome], settled: dict[int, Any]) -> None:
        """The throttle's counts as they follow from what was delivered: nothing is outstanding after a restart."""
        self._next_place = max((outcome.place for outcome in outcomes), default=-1) + 1
        known = {outcome.place for outcome in outcomes}
        self._returned.extend(place for place in range(self._next_place) if place not in known)
        held = self._replay.counts().prompts_waiting + self._replay.counts().windows_drawn * (
            self._learning.groups_per_window
        )
        t = self._throttle
        t.failed = sum(outcome.failure is not None for outcome in outcomes)
        t.filtered = sum(not outcome.examples and outcome.failure is None for outcome in outcomes)
        t.accepted = len(outcomes) - t.failed - t.filtered
        t.leased = len(outcomes)
        t.quarantined = t.accepted + t.filtered - held
        t.windows_settled = len(settled)
        t.windows_discarded = sum(body["discarded"] for body in settled.values())
