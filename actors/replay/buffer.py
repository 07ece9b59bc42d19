"""The replay buffer: leases places in the prompt source, takes in what exploring them gave and what people voted, and
hands out windows.

What is here is a view; the truth is in the store. A delivery or a vote is acknowledged when the store has it on disk.
All bookkeeping is in actors.replay.leases, training.replay.replay and actors.replay.late_votes; this is the shell.

A write may end without anybody knowing whether it was kept (an overdue store). So whatever is written is written again
until it is known, nothing is handed on before that, and where two outcomes of one place met, the one on disk stands.
"""

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from actors.replay.erasure import Traces, traces
from actors.replay.late_votes import LateVotes, check
from actors.replay.leases import Leases
from actors.replay.outbox import UNSURE, Outbox
from actors.replay.pause import Pause
from actors.replay.prompt_queue import PromptQueue
from actors.replay.recovery import COUNTS, SETTLED, Recovered, recover
from actors.runtime.rpc import Peer
from core.aio import Gather, comes_true
from core.clock import Clock, SystemClock
from core.codec import decode_batch, encode, encode_batch
from core.config import LearningConfig, VotesConfig
from core.errors import Unavailable
from core.messages import Outcome, Prompt, Vote
from core.metrics import Metrics
from core.store.encoded import EncodedOutcome, encode_outcome
from core.store.records import Record, Row, event, fact, message
from core.store.writer import WINDOW, RunReader
from training.replay.backpressure import Backpressure
from training.replay.interval_set import IntervalSet
from training.replay.replay import Explored, Replay

OWED_RETRY_S = 1.0
TOLD_S = 15.0
"""People's votes make one event in so long."""
COUNTED = ("prompts_total", "candidates_total", "votes_total", "resettled_total", "windows_drawn_total")


class Buffer:
    def __init__(
        self,
        run_dir: str,
        store: Peer,
        learning: LearningConfig,
        windows_wanted: int | None,
        metrics: Metrics,
        votes: VotesConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        votes = votes or VotesConfig()
        self._run_dir = Path(run_dir)
        self._learning = learning
        self._store = store
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._throttle = Backpressure(learning.groups_per_window, learning.max_lag, windows_wanted)
        self._leases = Leases(self._throttle, learning.lease_s, self._clock)
        self._replay = Replay(
            learning.groups_per_window, learning.replay_windows, learning.max_lag, votes.correction_share
        )
        self._voting = LateVotes(self._run_dir, self._append, self._replay, votes, metrics, self._clock)
        self._asked = PromptQueue(votes.asked_room)
        self._one_ballot = asyncio.Lock()
        self._ballots = Gather(self._cast)
        self._settled: dict[int, bool] = {}
        """Window -> whether its version was rejected."""
        self._unsaved: dict[int, list[Record]] = {}
        """Windows drawn that the store did not acknowledge yet, and nobody was given."""
        self._owed = Outbox(self._append)
        self._paused = Pause(self._owed, self._tell, metrics, self._clock)
        self._failures = 0
        self._shares: deque[float] = deque(maxlen=learning.groups_per_window)
        self._tokens = 0
        self._lag = 0
        self._told_at = 0.0
        self._changed = asyncio.Condition()
        self._started = False

    async def start(self) -> None:
        """Rebuild the view from what the store holds."""
        found = await asyncio.to_thread(recover, self._run_dir, self._learning)
        self._restore(found)
        self._metrics.begin(*COUNTED)
        self._started = True
        await self._wake()
        await self._paused.restore(found.paused)

    async def run(self) -> None:
        """Take back what was leased and not delivered in time, and write again what the store would not take."""
        while True:
            await self.tick()
            longest = OWED_RETRY_S if self._owed else TOLD_S
            await asyncio.sleep(min(longest, max(0.5, self._leases.soonest - self._clock.monotonic())))

    async def tick(self) -> None:
        await self._expire()
        await self._owed.write()
        if self._clock.monotonic() - self._told_at >= TOLD_S:
            for news in self._news():
                await self._tell(news)

    async def stop(self) -> None:
        self._voting.close()

    # --- collectors ---

    async def lease(self, wanted: int, wait_s: float, token: str = "") -> bytes | None:
        """Up to so many places to explore, as soon as there is any room; None after `wait_s`. Asking again with the
        same `token` gives the same lease, for as long as it runs."""
        self._check_started()
        leases, throttle = self._leases, self._throttle
        await comes_true(
            self._changed,
            lambda: bool(leases.granted(token)) or (not self._paused and throttle.capacity > 0),
            wait_s,
        )
        lease = leases.granted(token)
        if lease is None and not self._paused:
            lease = leases.grant(wanted, token, self._voting.any, self._asked)
        return encode(lease) if lease is not None else None

    async def deliver(self, batch: bytes) -> list[str]:
        """Take parcels in; each is `accepted`, `filtered`, `failed`, `duplicate`, `stale` or `expired`. All but the
        last are on disk when this returns. Delivering again changes nothing."""
        self._check_started()
        parcels = decode_batch(EncodedOutcome, batch)
        claimed = [self._leases.claim(parcel) for parcel in parcels]
        mine = [parcel for parcel, leased in zip(parcels, claimed, strict=True) if leased is not None]
        try:
            explored = {parcel.place: _explored(parcel) for parcel in mine}
            if mine:
                await self._append([row for parcel in mine for row in parcel.rows])
            standing = await self._standing([p for p in mine if self._leases.is_second_hand(p.place)])
        except BaseException:  # whatever kept it from being acknowledged, the lease runs on
            for parcel, leased in zip(parcels, claimed, strict=True):
                if leased is not None:
                    self._leases.unclaim(parcel.place, leased)
            raise
        taken = iter(self._take(mine, explored, standing))
        results = ["expired" if leased is None else next(taken) for leased in claimed]
        if self._failures >= self._learning.groups_per_window:
            last = next((parcel.failure for parcel in reversed(parcels) if parcel.failure), "unknown")
            await self._paused.begin(f"{self._failures} prompts in a row failed, the last: {last}", lasting=False)
            self._failures = 0
        await self._wake()
        return results

    async def votes_on(self, prompt_id: str) -> tuple[int, bytes]:
        """How many votes of people count on this prompt, and the votes."""
        self._check_started()
        cast = await asyncio.to_thread(self._voting.votes_on, prompt_id)
        return len(cast), encode_batch(cast)

    async def resettle(self, wait_s: float) -> bytes | None:
        """An explored prompt to settle again because people voted on it; None after `wait_s`."""
        self._check_started()
        work_id = uuid.uuid4().hex
        await comes_true(self._changed, lambda: self._voting.has_work, wait_s)
        expires_at = self._leases.expires_at
        place = self._voting.take(work_id, expires_at)
        if place is None:
            return None
        self._leases.watch(place, work_id, expires_at)
        work = await asyncio.to_thread(self._voting.work, place, work_id)
        if work is None:
            self._voting.drop(place)
        return encode(work) if work is not None else None

    async def resettled(self, batch: bytes) -> list[str]:
        """Take outcomes of `resettle` in; each is `replaced`, `failed`, `late` (no window takes it any more) or
        `expired`. Those replaced are on disk when this returns."""
        self._check_started()
        results = await self._voting.finish(decode_batch(Outcome, batch))
        await self._wake()
        return results

    # --- trainer ---

    async def draw(self, after: int, newest: int, wait_s: float) -> bytes | None:
        """The window after number `after`: drawn now if it is full, or again if a trainer died over it; None after
        `wait_s`, and while the store has not acknowledged it. `newest` is the version in the explore slot, from which
        staleness is counted."""
        self._check_started()
        if self._drawn_after(after) is None:
            await comes_true(self._changed, lambda: self._replay.ready() and not self._paused, wait_s)
            # another draw may have taken it while this one waited
            if self._drawn_after(after) is None and not self._paused:
                self._draw_next(newest)
        number = self._drawn_after(after)
        if number is not None and not await self._is_saved(number):
            await asyncio.sleep(min(wait_s, OWED_RETRY_S))
            return None
        window = self._replay.again(number) if number is not None else None
        return encode(window, compress=False) if window is not None else None

    # --- versions ---

    async def published(self, version: int) -> None:
        """Staleness counts one version more."""
        self._check_started()
        self._replay.publish(version)

    async def settle(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        """The candidate made of this window is decided; a rejected one's samples are quarantined, also one's that was
        promoted and is rolled back. Idempotent. The store's decisions say the same, so this waits for no disk."""
        self._check_started()
        if rejected:
            withdrawn = self._replay.quarantine(version)
            self._throttle.quarantine(len(withdrawn.places))
            self._replay.quarantine_window(window)
        known = self._settled.get(window)
        if known is None:
            if discarded:
                self._throttle.discard()
            else:
                self._throttle.settle()
        if known is None or (rejected and not known):
            self._settled[window] = rejected
            self._owed.owe(settled_fact(window, version, rejected, discarded))
            await self._owed.write()
        await self._wake()

    # --- people ---

    async def vote(self, batch: bytes, beside: Sequence[tuple[str, str, str, bytes]] = ()) -> list[str]:
        """Take votes of people or verifiers in, on disk when this returns: `counted` (the prompt is settled again),
        `waiting` (until it is explored), `left_out` (kept, over the voter's budget) or `duplicate` by its id. Records
        `beside` them, what was said that makes them votes, are written with them.

        Raises: ArtifactError for what is no such vote; nothing of the batch was kept then."""
        self._check_started()
        votes = decode_batch(Vote, batch)
        check(votes)
        return await self._ballots((votes, [Record(*record) for record in beside]))

    async def _cast(self, batches: Sequence[tuple[list[Vote], list[Record]]]) -> list[list[str]]:
        """What came while the last votes went to the disk goes there together."""
        every = [vote for votes, _ in batches for vote in votes]
        beside = [record for _, records in batches for record in records]
        async with self._one_ballot:
            results = iter(await self._voting.cast(every, asyncio.to_thread, beside))
        await self._wake()
        return [[next(results) for _ in votes] for votes, _ in batches]

    async def forget(self, name: str) -> dict[str, Any]:
        """Remove what came from a voter, or from a key and all its users: votes, feedback and answers. The prompts that
        they voted on are settled again without them; versions keep what they have learned, and are named."""
        self._check_started()
        async with self._one_ballot:
            found = await asyncio.to_thread(self._traces, name)
            removed = await self._store.call("remove", found.ids)
            await self._voting.withdraw(name, found.prompts, asyncio.to_thread)
        about = {"votes": len(found.ids["votes"]), "rows": removed, "versions": found.versions}
        await self._tell(self._event("forgotten", **about))  # the name is not kept either
        await self._wake()
        return about

    def _traces(self, name: str) -> Traces:
        with closing(self._reader()) as reader:
            return traces(reader, name, self._voting.prompts)

    async def ask(self, batch: bytes) -> int:
        """Explore prompts that people asked, on disk when this returns; how many of them are new. Those beyond
        `method.votes.asked_room` are left out."""
        self._check_started()
        new = self._asked.missing(decode_batch(Prompt, batch))
        if not new:
            return 0
        known = await asyncio.to_thread(self._explored, new)
        new = [prompt for prompt in new if prompt.id not in known]
        if new:
            await self._append([message("asked", prompt.id, prompt.origin, prompt) for prompt in new])
            self._asked.add(new)
            await self._wake()
        return len(new)

    async def pause(self, reason: str) -> None:
        """No more leases and draws until `resume`, over restarts; what is in flight is still taken."""
        self._check_started()
        await self._paused.begin(reason, lasting=True)

    async def resume(self) -> None:
        self._check_started()
        await self._paused.end(self._wake)

    async def quiet_s(self) -> float:
        """An answer is all that tells that its loop turns."""
        return 0.0

    async def status(self) -> dict[str, Any]:
        counts = self._replay.counts()
        t = self._throttle
        return {
            **self._paused.status(),
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
            **self._voting.counts(),
            "asked": len(self._asked),
            "owed": len(self._owed) + len(self._unsaved),
        }

    # --- parcels ---

    async def _standing(self, parcels: Sequence[EncodedOutcome]) -> dict[int, EncodedOutcome]:
        """Place -> what the store holds for it, where that is another: an outcome that was thought lost may have been
        first."""
        return await asyncio.to_thread(self._others, parcels) if parcels else {}

    def _others(self, parcels: Sequence[EncodedOutcome]) -> dict[int, EncodedOutcome]:
        with closing(self._reader()) as reader:
            kept = {parcel.place: reader.outcome(parcel.place) for parcel in parcels if not reader.has(parcel.brief)}
        return {place: encode_outcome(outcome) for place, outcome in kept.items() if outcome is not None}

    def _explored(self, prompts: Sequence[Prompt]) -> set[str]:
        with closing(self._reader()) as reader:
            return {prompt.id for prompt in prompts if reader.ids("outcomes", prompt.id)}

    def _take(
        self, delivered: Sequence[EncodedOutcome], explored: dict[int, Explored], standing: Mapping[int, EncodedOutcome]
    ) -> list[str]:
        """Count what is stored."""
        explored |= {place: _explored(parcel) for place, parcel in standing.items()}
        stands = [standing.get(parcel.place, parcel) for parcel in delivered]
        results = [self._count(p, stored, explored[p.place]) for p, stored in zip(delivered, stands, strict=True)]
        self._meter(stands, results)
        return [
            result if stored is parcel else "duplicate"
            for parcel, stored, result in zip(delivered, stands, results, strict=True)
        ]

    def _count(self, delivered: EncodedOutcome, standing: EncodedOutcome, explored: Explored) -> str:
        result = self._replay.take(explored) if standing.failure is None else "failed"
        self._leases.end(delivered.place, result)
        self._asked.end(delivered.place, again=result == "failed" and not delivered.prompt_id)
        self._failures = self._failures + 1 if result == "failed" else 0
        self._tokens += standing.tokens
        self._shares.extend(standing.shares)
        if result in ("accepted", "filtered"):
            self._voting.delivered(standing)
        return result

    def _meter(self, parcels: Sequence[EncodedOutcome], results: Sequence[str]) -> None:
        for result, prompts in Counter(results).items():
            self._metrics.count("prompts_total", prompts, result=result)
        self._metrics.count("candidates_total", sum(parcel.candidates for parcel in parcels))
        for by, votes in sum((Counter(parcel.votes) for parcel in parcels), Counter[str]()).items():
            self._metrics.count("votes_total", votes, by=by)
        for share in (share for parcel in parcels for share in parcel.shares):
            self._metrics.observe("vote_share", share)

    async def _expire(self) -> None:
        for place, id in self._leases.overdue():
            if self._voting.is_taken(place, id):
                self._voting.expire(place)
            elif self._leases.expire(place, id):
                self._metrics.count("prompts_total", result="expired")
        await self._wake()

    # --- windows ---

    def _drawn_after(self, after: int) -> int | None:
        """The window that is drawn already and due to the trainer that has those up to `after`."""
        return after + 1 if self._replay.is_drawn(after + 1) else next(iter(self._unsaved), None)

    def _draw_next(self, newest: int) -> None:
        oldest = self._replay.oldest_fresh(newest)
        window = self._replay.draw(newest)
        if window is None:
            return
        places = self._replay.drawn_places(window.number)
        examples = len(window.examples)
        body = {"places": places, "newest": newest, "oldest": oldest}
        self._unsaved[window.number] = [
            fact(f"{WINDOW}{window.number}", body),
            fact(COUNTS, self._counts(window.number)),
            self._event("drawn", window=window.number, prompts=len(places), examples=examples),
            *self._news(),
        ]
        new = set(window.group_ids)
        versions = {example.policy.version for example in window.examples if example.group_id in new}
        self._lag = max((self._replay.lag(version, newest) for version in versions), default=0)
        self._voting.forget()

    async def _is_saved(self, number: int) -> bool:
        """Whether the store has this window, after another try where it is not known."""
        records = self._unsaved.get(number)
        if records is None:
            return True
        try:
            await self._append(records)
        except UNSURE:
            return False
        if self._unsaved.pop(number, None) is not None:
            self._metrics.count("windows_drawn_total")
            self._metrics.set("lag_versions", self._lag)
        return True

    def _counts(self, window: int) -> dict[str, Any]:
        """What a restart needs to know of all that was taken until this window was drawn (`actors.replay.recovery`)."""
        counts = self._replay.counts()
        return {
            "window": window,
            "waiting": self._replay.waiting_places(),
            "tokens": self._tokens,
            "stale": counts.stale_examples,
            "quarantined": counts.quarantined_prompts,
            **self._leases.counts(),
        }

    # --- inside ---

    def _check_started(self) -> None:
        if not self._started:
            raise Unavailable("the buffer is not started yet; try again")

    async def _append(self, records: Sequence[Row]) -> None:
        """As plain tuples: Ray pickles each of a class of ours by a call into Python, 35 times as slowly."""
        await self._store.call("append", [tuple(record) for record in records])

    def _news(self) -> list[Record]:
        """One line of history for all the votes since the last."""
        if not any(self._voting.news.values()):
            return []
        self._told_at = self._clock.monotonic()
        return [self._event("voted", **self._voting.take_news())]

    async def _tell(self, record: Record) -> None:
        """A line of history; one that the store would not take is left out."""
        with suppress(*UNSURE):
            await self._append([record])

    def _event(self, kind: str, **detail: Any) -> Record:
        return event(self._clock.now(), "buffer", kind, **detail)

    def _reader(self) -> RunReader:
        return RunReader(self._run_dir)

    async def _wake(self) -> None:
        counts = self._replay.counts()
        self._metrics.set("buffer_groups", counts.prompts_waiting)
        self._metrics.set("buffer_examples", counts.examples_waiting)
        self._metrics.set("outstanding_leases", len(self._leases.outstanding))
        async with self._changed:
            self._changed.notify_all()

    def _restore(self, found: Recovered) -> None:
        self._replay.restore(
            found.outcomes,
            drawn={number: body["places"] for number, body in found.windows.items()},
            quarantined=found.bad_versions,
            quarantined_windows=[window for window, settled in found.settled.items() if settled["rejected"]],
            versions=found.versions,
            newest_at_draw={number: body["newest"] for number, body in found.windows.items()},
            oldest_at_draw={number: body["oldest"] for number, body in found.windows.items() if "oldest" in body},
            used=IntervalSet.below(found.next_place, but=found.open),
        )
        self._replay.recount(found.counts["stale"], found.counts["quarantined"])
        counts = self._replay.counts()
        held = counts.prompts_waiting + counts.windows_drawn * self._learning.groups_per_window
        self._leases.restore(found, held)
        self._throttle.windows_settled = len(found.settled)
        self._throttle.windows_discarded = sum(settled["discarded"] for settled in found.settled.values())
        self._tokens = found.counts["tokens"]
        self._settled = {window: settled["rejected"] for window, settled in found.settled.items()}
        for window in found.unwritten:
            self._owed.owe(settled_fact(window, **found.settled[window]))
        self._voting.restore(found.voted, found.firsts)
        self._asked.add(found.asked)


def _explored(parcel: EncodedOutcome) -> Explored:
    return Explored(
        place=parcel.place,
        version=parcel.version,
        group_ids=parcel.group_ids,
        examples=parcel.examples,
        prompt_id=parcel.prompt_id,
        revision=parcel.revision,
    )


def settled_fact(window: int, version: int, rejected: bool, discarded: bool) -> Record:
    return fact(f"{SETTLED}{window}", {"version": version, "rejected": rejected, "discarded": discarded})
