"""What people vote, as the buffer keeps it: which prompts are to be settled again, by whom, and what became of it.

A prompt's votes stand in the store's table of votes; the fact `voted:PROMPT` beside them says how many count, so that a
restart finds the work again: every held prompt that was settled with fewer. Nothing here holds a vote itself.

To settle a prompt again costs as much as it has votes. So it is done at once when they have grown by an eighth since
the last time, and otherwise within `SETTLE_S` for up to `SETTLE_VOTES`, within as many times that as there are more:
what a vote costs does not grow with those before it.
"""

from collections import ChainMap, Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.clock import Clock
from core.config import VotesConfig
from core.errors import ArtifactError
from core.messages import Outcome, Resettle, Vote
from core.metrics import Metrics
from core.store.encoded import EncodedOutcome
from core.store.records import Record, fact, message, resettled_record
from core.store.writer import RunReader
from methods.ballot import Budgets
from training.replay.replay import Replay

VOTED, FIRST = "voted:", "first:"
SETTLE_S = 15.0
SETTLE_VOTES = 128
GROWTH = 8


@dataclass(frozen=True)
class Taken:
    """Work that somebody does until then."""

    id: str
    expires_at: float


@dataclass
class Voted:
    """What people did on one prompt."""

    kept: int = 0
    """Votes in the store that count."""
    since: MutableMapping[str, int] = field(default_factory=dict[str, int])
    """Voter -> the window in which that voter first counted here."""


def facts(prompt_id: str, kept: int, since: Mapping[str, int]) -> list[Record]:
    """`since`: of those voters who are to be written down."""
    return [
        fact(f"{VOTED}{prompt_id}", {"kept": kept}),
        *(
            fact(first(prompt_id, voter), {"prompt": prompt_id, "voter": voter, "window": window})
            for voter, window in since.items()
        ),
    ]


def first(prompt_id: str, voter: str) -> str:
    """Name of the fact that says when a voter first counted on a prompt."""
    return f"{FIRST}{prompt_id}/{voter}"


class LateVotes:
    """`append` returns when its records are on disk. Calls of `cast` must not overlap."""

    def __init__(
        self,
        run_dir: Path,
        append: Callable[[Sequence[Record]], Awaitable[None]],
        replay: Replay,
        config: VotesConfig,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._run_dir = run_dir
        self._append = append
        self._replay = replay
        self._metrics = metrics
        self._clock = clock
        self._voted: dict[str, Voted] = {}
        self._unsure: set[str] = set()
        """Prompts on which votes were written and not acknowledged."""
        self._budgets = Budgets(config.ballots_per_window)
        self._to_settle: dict[int, float] = {}
        """Place -> when it is due."""
        self._taken: dict[int, Taken] = {}
        self.news = {"votes": 0, "left_out": 0, "resettled": 0}
        """Since they were last told."""
        self._totals = dict.fromkeys(self.news, 0)
        self._reader: RunReader | None = None
        """Of `cast`, which would else open the file for each batch: that takes ten times as long as to read there."""

    @property
    def any(self) -> bool:
        return bool(self._voted)

    @property
    def has_work(self) -> bool:
        return self._due() is not None

    # --- voting ---

    async def cast(
        self,
        votes: Sequence[Vote],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        beside: Sequence[Record] = (),
    ) -> list[str]:
        """All or none of the batch, and of the records `beside` it, which are written whatever becomes of its votes.
        What is in the store decides which are new, so that trying again is safe."""
        prompts = list(dict.fromkeys(vote.prompt_id for vote in votes))
        unsure = [prompt for prompt in prompts if prompt in self._unsure]
        seen, kept = await in_thread(lambda: self._known([vote.id for vote in votes], unsure))
        # who first counts there now; who did before is not copied: a vote costs no more the more there are
        new = {prompt: dict[str, int]() for prompt in prompts}
        after = {p: Voted(kept.get(p, self._of(p).kept), ChainMap(new[p], self._of(p).since)) for p in prompts}
        window = self._replay.windows_drawn
        results, records = list[str](), list[Record]()
        for vote in votes:
            if vote.id in seen:
                results.append("duplicate")
                continue
            seen.add(vote.id)
            stamped = self._stamped(vote, after[vote.prompt_id], window)
            records.append(message("votes", vote.id, vote.prompt_id, stamped))
            results.append("counted" if stamped.counted else "left_out")
        if records:
            self._unsure.update(prompts)
            counts = [each for prompt in prompts for each in facts(prompt, after[prompt].kept, new[prompt])]
            await self._write([*beside, *records, *counts])
        elif beside:
            await self._append(beside)
        self._unsure.difference_update(prompts)
        for prompt in prompts:
            if after[prompt].kept:
                voted = self._voted.setdefault(prompt, Voted())
                voted.kept = after[prompt].kept
                voted.since.update(new[prompt])
        held = self._queue(prompts)
        results = [
            "waiting" if result == "counted" and vote.prompt_id not in held else result
            for vote, result in zip(votes, results, strict=True)
        ]
        self._meter(votes, results)
        return results

    def votes_on(self, prompt_id: str) -> list[Vote]:
        """Those that count; reads the store."""
        if prompt_id not in self._voted:
            return []
        with closing(RunReader(self._run_dir)) as reader:
            return [vote for vote in _of_people(reader, prompt_id) if vote.counted]

    def _known(self, ids: Sequence[str], unsure: Iterable[str]) -> tuple[set[str], dict[str, int]]:
        """Which votes the store holds, and how many count of those on prompts of which a write may have been kept
        though nobody was told."""
        reader, self._reader = self._reader or RunReader(self._run_dir), None
        try:
            kept = {prompt: sum(vote.counted for vote in _of_people(reader, prompt)) for prompt in unsure}
            seen = reader.which("votes", ids)
        except BaseException:  # one that failed is not asked again
            reader.close()
            raise
        self._reader = reader
        return seen, kept

    def _of(self, prompt_id: str) -> Voted:
        return self._voted.get(prompt_id) or Voted()

    def _stamped(self, vote: Vote, voted: Voted, window: int) -> Vote:
        counted = vote.by == "verifier" or self._budgets.allows(vote.voter, voted.since, window)
        voted.kept += counted
        return vote.model_copy(update={"counted": counted, "cast_at": vote.cast_at or self._clock.now()})

    async def _write(self, records: Sequence[Record]) -> None:
        try:
            await self._append(records)
        except BaseException:  # not acknowledged: it costs its voters nothing
            self._restore_budgets()
            raise

    def _meter(self, votes: Sequence[Vote], results: Sequence[str]) -> None:
        kinds = Counter(vote.by for vote, result in zip(votes, results, strict=True) if result != "duplicate")
        for by, n in kinds.items():
            self._metrics.count("votes_total", n, by=by)
        self._count("votes", kinds.total())
        self._count("left_out", results.count("left_out"))

    def _count(self, what: str, n: int) -> None:
        self.news[what] += n
        self._totals[what] += n

    @property
    def prompts(self) -> list[str]:
        """That people voted on."""
        return list(self._voted)

    async def withdraw(
        self, name: str, prompts: Sequence[str], in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> None:
        """The votes of this voter are gone from the store: count what is left, and settle those prompts again."""
        _, kept = await in_thread(lambda: self._known([], prompts))
        for prompt in prompts:
            since = {voter: window for voter, window in self._of(prompt).since.items() if voter != name}
            self._voted[prompt] = Voted(kept[prompt], since)
        if prompts:
            of = {prompt: self._voted[prompt] for prompt in prompts}
            await self._append([each for p, voted in of.items() for each in facts(p, voted.kept, voted.since)])
        again, now = set(prompts), self._clock.monotonic()
        self._to_settle |= {e.place: now for e in self._replay.held() if e.prompt_id in again}

    # --- settling again ---

    def delivered(self, parcel: EncodedOutcome) -> None:
        """A prompt was explored: people may have voted on it before, or while it was under way."""
        self._settle_soon(parcel.place, parcel.prompt_id, parcel.revision)

    def take(self, work_id: str, expires_at: float) -> int | None:
        """The place to settle again next, the caller's until then."""
        self.forget()
        place = self._due()
        if place is not None:
            del self._to_settle[place]
            self._taken[place] = Taken(work_id, expires_at)
        return place

    def work(self, place: int, work_id: str) -> Resettle | None:
        """What is to be settled, from the store; None when it was thrown away, since no window takes it any more."""
        with closing(RunReader(self._run_dir)) as reader:
            outcome = reader.outcome(place)
            if outcome is None or not outcome.scored:
                return None
            groups = [scored.group for scored in outcome.scored if scored.group.by == "sample"]
            sampled = [g for g in groups if g.id in outcome.sampled_ids] if outcome.sampled_ids else groups
            cast = tuple(vote for vote in _of_people(reader, outcome.prompt_id) if vote.counted)
        about = {"id": work_id, "place": place, "prompt_id": outcome.prompt_id, "revision": len(cast)}
        return Resettle(**about, groups=tuple(sampled), votes=cast)

    async def finish(self, outcomes: Sequence[Outcome]) -> list[str]:
        """`replaced`, `failed`, `late` or `expired`; on disk before a window takes it."""
        mine = [self.is_taken(outcome.place, outcome.lease_id) for outcome in outcomes]
        kept = [o for o, held in zip(outcomes, mine, strict=True) if held and o.failure is None]
        if kept:
            settled = {"settled_at": self._clock.now()}
            await self._append([resettled_record(outcome.model_copy(update=settled)) for outcome in kept])
        return [self._replace(o) if held else "expired" for o, held in zip(outcomes, mine, strict=True)]

    def is_taken(self, place: int, work_id: str) -> bool:
        taken = self._taken.get(place)
        return taken is not None and taken.id == work_id

    def drop(self, place: int) -> None:
        """Nobody does it any more, nor is it to be done."""
        self._taken.pop(place, None)

    def expire(self, place: int) -> None:
        self.drop(place)
        self._to_settle[place] = self._clock.monotonic()

    def forget(self) -> None:
        """Work on what no window takes any more."""
        held = {explored.place for explored in self._replay.held()} if self._to_settle else set[int]()
        self._to_settle = {place: due_at for place, due_at in self._to_settle.items() if place in held}

    def _queue(self, prompts: Iterable[str]) -> set[str]:
        """Held prompts among these go to the collectors again, if they have votes that they were not settled with."""
        wanted, held = set(prompts), set[str]()
        for explored in self._replay.held():
            if explored.prompt_id in wanted:
                held.add(explored.prompt_id)
                if explored.place not in self._taken:
                    self._settle_soon(explored.place, explored.prompt_id, explored.revision)
        return held

    def _replace(self, outcome: Outcome) -> str:
        if self.is_taken(outcome.place, outcome.lease_id):
            self.drop(outcome.place)
        if outcome.failure is not None:
            return "failed"  # the next vote tries again
        replaced = self._replay.replace(outcome)
        if self._replay.holds(outcome.place):
            self._settle_soon(outcome.place, outcome.prompt_id, outcome.revision)
        if replaced:
            self._metrics.count("resettled_total")
            self._count("resettled", 1)
        return "replaced" if replaced else "late"

    def _due(self) -> int | None:
        now = self._clock.monotonic()
        return next((place for place, due_at in self._to_settle.items() if due_at <= now), None)

    def _settle_soon(self, place: int, prompt_id: str, revision: int) -> None:
        """`revision`: the votes that it was settled with."""
        new, now = self._of(prompt_id).kept - revision, self._clock.monotonic()
        if new > 0:
            due_at = now if new * GROWTH >= revision else now + SETTLE_S * max(1.0, revision / SETTLE_VOTES)
            self._to_settle[place] = min(due_at, self._to_settle.get(place, due_at))

    # --- life ---

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def restore(self, voted: Mapping[str, Mapping[str, Any]], firsts: Iterable[Mapping[str, Any]]) -> None:
        """From the facts, once the replay is restored."""
        self._voted = {prompt: Voted(body["kept"]) for prompt, body in voted.items()}
        for body in firsts:
            self._voted.setdefault(body["prompt"], Voted()).since[body["voter"]] = body["window"]
        self._restore_budgets()
        self._queue(self._voted)

    def _restore_budgets(self) -> None:
        window = self._replay.windows_drawn
        self._budgets.restore((voted.since for voted in self._voted.values()), window)

    def counts(self) -> dict[str, int]:
        held = {explored.prompt_id for explored in self._replay.held()}
        return {
            "person_votes": sum(voted.kept for voted in self._voted.values()),
            "person_votes_left_out": self._totals["left_out"],
            "prompts_voted": len(self._voted),
            "prompts_voted_waiting": len(self._voted.keys() - held),
            "to_resettle": len(self._to_settle) + len(self._taken),
            "resettled": self._totals["resettled"],
        }

    def take_news(self) -> dict[str, int]:
        """For one line of history."""
        news, self.news = self.news, dict.fromkeys(self.news, 0)
        counts = self.counts()
        return {**news, "prompts": counts["prompts_voted"], "to_resettle": counts["to_resettle"]}


def check(votes: Sequence[Vote]) -> None:
    """Raises: ArtifactError for what is no vote of a person or a verifier."""
    for vote in votes:
        if vote.by == "sample":
            raise ArtifactError(f"vote {vote.id!r} is by a sample; here only people and verifiers vote")
        if not vote.id or not vote.prompt_id:
            raise ArtifactError(f"vote {vote.id!r} on prompt {vote.prompt_id!r}: give it an id, and name its prompt")
        if vote.candidate_id is None and vote.answer is None and vote.correction is None:
            raise ArtifactError(f"vote {vote.id!r} says nothing; give it an answer, a candidate_id or a correction")


def _of_people(reader: RunReader, prompt_id: str) -> list[Vote]:
    """All that was cast on a prompt but for the samples' own."""
    return [vote for vote in reader.children("votes", Vote, prompt_id) if vote.by != "sample"]
