"""The buffer's port for collectors: leases, delivered outcomes, and prompts to settle again."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from actors.replay.leases import Leased
from actors.replay.state import BufferState
from actors.runtime.ports import LeasePort
from core.messages import Lease, Outcome, Resettle, Scored, Vote
from core.store.encoded import EncodedOutcome, encode_outcome
from core.store.records import message
from training.replay.replay import Explored

EARLIER = 8
"""Explorations of a prompt that a method remembers."""


class Exploration(LeasePort):
    def __init__(self, state: BufferState) -> None:
        self._state = state
        self._failures = 0
        """Failed prompts in a row."""

    async def lease(self, wanted: int, wait_s: float, token: str = "") -> Lease | None:
        state = self._state
        state.check_started()
        await state.wait_until(lambda: state.leases.granted(token) is not None or self._may_grant(), wait_s)
        lease = state.leases.granted(token)
        if lease is None and not state.pause:
            tuned = state.tuning.values
            lease = state.leases.grant(wanted, token, state.late_votes.any, state.asked, tuned)
        return lease

    def _may_grant(self) -> bool:
        return not self._state.pause and self._state.throttle.capacity > 0

    async def deliver(self, outcomes: Sequence[EncodedOutcome]) -> list[str]:
        state = self._state
        state.check_started()
        claimed = [state.leases.claim(outcome) for outcome in outcomes]
        mine = [outcome for outcome, leased in zip(outcomes, claimed, strict=True) if leased is not None]
        try:
            stored = await self._store(mine)
        except BaseException:  # not acknowledged: the lease stays valid, whatever the error
            self._unclaim(outcomes, claimed)
            raise
        results = iter(self._take(mine, stored))
        answers = ["expired" if leased is None else next(results) for leased in claimed]
        await self._pause_after_failures(outcomes)
        await state.wake()
        return answers

    async def votes_on(self, prompt_id: str) -> tuple[int, list[Vote]]:
        self._state.check_started()
        cast = await asyncio.to_thread(self._state.late_votes.votes_on, prompt_id)
        return len(cast), cast

    async def earlier(self, prompt_id: str, place: int) -> list[Scored]:
        self._state.check_started()
        return await asyncio.to_thread(self._judged, prompt_id, place)

    def _judged(self, prompt_id: str, place: int) -> list[Scored]:
        with closing(self._state.reader()) as reader:
            places = [int(each) for each in reader.ids("outcomes", prompt_id) if int(each) != place][-EARLIER:]
            outcomes = [reader.outcome(each) for each in places]
        return [scored for outcome in outcomes if outcome is not None for scored in outcome.scored]

    async def resettle(self, wait_s: float) -> Resettle | None:
        state, resettling = self._state, self._state.late_votes.resettling
        state.check_started()
        await state.wait_until(lambda: resettling.has_work, wait_s)
        work_id, expires_at = uuid.uuid4().hex, state.leases.expires_at
        place = resettling.take(work_id, expires_at)
        if place is None:
            return None
        state.leases.watch(place, work_id, expires_at)
        work = await asyncio.to_thread(resettling.work, place, work_id)
        if work is None:
            resettling.drop(place)
            return None
        return work.model_copy(update={"tuned": dict(state.tuning.values)})

    async def resettled(self, outcomes: Sequence[Outcome]) -> list[str]:
        self._state.check_started()
        results = await self._state.late_votes.resettling.finish(outcomes)
        await self._state.wake()
        return results

    async def expire(self) -> None:
        """Take back places that were not delivered in time: leased ones, and ones to settle again."""
        state, resettling = self._state, self._state.late_votes.resettling
        for place, id in state.leases.overdue():
            if resettling.is_under_way(place, id):
                resettling.expire(place)
            elif state.leases.expire(place, id):
                state.metrics.count("prompts_total", result="expired")
        await state.wake()

    # --- deliveries ---

    def _unclaim(self, outcomes: Sequence[EncodedOutcome], claimed: Sequence[Leased | None]) -> None:
        for outcome, leased in zip(outcomes, claimed, strict=True):
            if leased is not None:
                self._state.leases.unclaim(outcome.place, leased)

    async def _store(self, outcomes: Sequence[EncodedOutcome]) -> list[tuple[EncodedOutcome, Explored]]:
        """Write outcomes. Returns for each the outcome that the store now holds for its place. Raises: ArtifactError
        for an outcome that cannot be read, before anything is written."""
        explored = [_explored(outcome) for outcome in outcomes]
        if outcomes:
            written = self._state.asked.missing(prompt for outcome in outcomes for prompt in outcome.asks)
            asked = [message("asked", prompt.id, prompt.origin, prompt) for prompt in written]
            await self._state.append([*(row for outcome in outcomes for row in outcome.rows), *asked])
            self._state.asked.add(written)
        earlier = await self._earlier([o for o in outcomes if self._state.leases.is_second_hand(o.place)])
        return [
            (earlier[outcome.place], _explored(earlier[outcome.place])) if outcome.place in earlier else (outcome, each)
            for outcome, each in zip(outcomes, explored, strict=True)
        ]

    async def _earlier(self, outcomes: Sequence[EncodedOutcome]) -> dict[int, EncodedOutcome]:
        """Place -> the outcome that the store holds for it, if it is a different one. An earlier delivery may have
        reached the store although its write seemed to fail."""
        return await asyncio.to_thread(self._read_earlier, outcomes) if outcomes else {}

    def _read_earlier(self, outcomes: Sequence[EncodedOutcome]) -> dict[int, EncodedOutcome]:
        with closing(self._state.reader()) as reader:
            kept = {o.place: reader.outcome(o.place) for o in outcomes if not reader.has(o.brief)}
        return {place: encode_outcome(outcome) for place, outcome in kept.items() if outcome is not None}

    def _take(
        self, delivered: Sequence[EncodedOutcome], stored: Sequence[tuple[EncodedOutcome, Explored]]
    ) -> list[str]:
        """Count the stored outcomes; returns a result for each delivered one."""
        results = [self._count(outcome, *kept) for outcome, kept in zip(delivered, stored, strict=True)]
        self._meter([outcome for outcome, _ in stored], results)
        return [
            result if kept is outcome else "duplicate"
            for outcome, (kept, _), result in zip(delivered, stored, results, strict=True)
        ]

    def _count(self, delivered: EncodedOutcome, stored: EncodedOutcome, explored: Explored) -> str:
        state = self._state
        result = state.replay.take(explored) if stored.failure is None else "failed"
        state.leases.end(delivered.place, result)
        state.asked.end(delivered.place, again=result == "failed" and not delivered.prompt_id)
        self._failures = self._failures + 1 if result == "failed" else 0
        state.tokens += stored.tokens
        state.shares.extend(stored.shares)
        if result in ("accepted", "filtered"):
            state.late_votes.resettling.delivered(stored)
        return result

    def _meter(self, outcomes: Sequence[EncodedOutcome], results: Sequence[str]) -> None:
        metrics = self._state.metrics
        for result, prompts in Counter(results).items():
            metrics.count("prompts_total", prompts, result=result)
        metrics.count("candidates_total", sum(outcome.candidates for outcome in outcomes))
        for by, votes in sum((Counter(outcome.votes) for outcome in outcomes), Counter[str]()).items():
            metrics.count("votes_total", votes, by=by)
        for share in (share for outcome in outcomes for share in outcome.shares):
            metrics.observe("vote_share", share)

    async def _pause_after_failures(self, outcomes: Sequence[EncodedOutcome]) -> None:
        """Pause learning after as many failures in a row as a window has groups."""
        if self._failures < self._state.learning.groups_per_window:
            return
        last = next((outcome.failure for outcome in reversed(outcomes) if outcome.failure), "unknown")
        reason = f"{self._failures} prompts in a row failed, the last: {last}"
        await self._state.pause.begin(reason, lasting=False)
        self._failures = 0


def _explored(outcome: EncodedOutcome) -> Explored:
    return Explored(
        place=outcome.place,
        version=outcome.version,
        group_ids=outcome.group_ids,
        examples=outcome.examples,
        prompt_id=outcome.prompt_id,
        revision=outcome.revision,
        measured=outcome.measured,
    )
