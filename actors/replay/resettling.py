"""Explored prompts to settle again because people voted on them.

Settling a prompt costs time in proportion to its votes. So a prompt is settled at once when its votes have grown by an
eighth since the last time. Otherwise it waits `SETTLE_S` seconds, times votes / `SETTLE_VOTES` if it has more than
`SETTLE_VOTES`. So the cost of one vote does not grow with the earlier votes.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from actors.replay.vote_tally import VoteTally
from core.clock import Clock
from core.messages import Outcome, Resettle, Vote
from core.metrics import Metrics
from core.store.encoded import EncodedOutcome
from core.store.reader import RunReader
from core.store.records import Record, resettled_record
from training.replay.replay import Replay

SETTLE_S = 15.0
SETTLE_VOTES = 128
GROWTH = 8


@dataclass(frozen=True)
class Work:
    """A collector settles a prompt again and has until `expires_at`."""

    id: str
    expires_at: float


class Resettling:
    def __init__(
        self,
        run_dir: Path,
        append: Callable[[Sequence[Record]], Awaitable[None]],
        replay: Replay,
        kept: Callable[[str], int],
        tally: VoteTally,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """`append` returns when its records are on disk. `kept`: returns how many votes on a prompt count."""
        self._run_dir = run_dir
        self._append = append
        self._replay = replay
        self._kept = kept
        self._tally = tally
        self._metrics = metrics
        self._clock = clock
        self._due_at: dict[int, float] = {}
        """Place -> when to settle it."""
        self._under_way: dict[int, Work] = {}

    def __len__(self) -> int:
        return len(self._due_at) + len(self._under_way)

    @property
    def has_work(self) -> bool:
        return self._due() is not None

    # --- what is due ---

    def delivered(self, outcome: EncodedOutcome) -> None:
        """A prompt was explored. People may have voted on it before, or during the exploration."""
        self._settle_soon(outcome.place, outcome.prompt_id, outcome.revision)

    def voted(self, prompts: Iterable[str]) -> set[str]:
        """People voted on these prompts. Returns those that a window can still use, and schedules each of them that has
        votes it was not settled with."""
        wanted, held = set(prompts), set[str]()
        for explored in self._replay.held():
            if explored.prompt_id in wanted:
                held.add(explored.prompt_id)
                if explored.place not in self._under_way:
                    self._settle_soon(explored.place, explored.prompt_id, explored.revision)
        return held

    def withdrawn(self, prompts: Iterable[str]) -> None:
        """Votes on these prompts were removed: settle them again now."""
        again, now = set(prompts), self._clock.monotonic()
        self._due_at |= {e.place: now for e in self._replay.held() if e.prompt_id in again}

    def forget(self) -> None:
        """Drop places that no window can use any more."""
        held = {explored.place for explored in self._replay.held()} if self._due_at else set[int]()
        self._due_at = {place: due_at for place, due_at in self._due_at.items() if place in held}

    def _due(self) -> int | None:
        now = self._clock.monotonic()
        return next((place for place, due_at in self._due_at.items() if due_at <= now), None)

    def _settle_soon(self, place: int, prompt_id: str, revision: int) -> None:
        """`revision`: the number of votes that the prompt was settled with."""
        new, now = self._kept(prompt_id) - revision, self._clock.monotonic()
        if new > 0:
            due_at = now if new * GROWTH >= revision else now + SETTLE_S * max(1.0, revision / SETTLE_VOTES)
            self._due_at[place] = min(due_at, self._due_at.get(place, due_at))

    # --- work ---

    def take(self, work_id: str, expires_at: float) -> int | None:
        """The next place to settle again; it belongs to the caller until `expires_at`."""
        self.forget()
        place = self._due()
        if place is not None:
            del self._due_at[place]
            self._under_way[place] = Work(work_id, expires_at)
        return place

    def work(self, place: int, work_id: str) -> Resettle | None:
        """The work for a collector, read from the store; None if the store has deleted it because no window can use
        it."""
        with closing(RunReader(self._run_dir)) as reader:
            outcome = reader.outcome(place)
            if outcome is None or not outcome.scored:
                return None
            cast = tuple(vote for vote in votes_of_people(reader, outcome.prompt_id) if vote.counted)
        groups = [scored.group for scored in outcome.scored if scored.group.by == "sample"]
        sampled = [g for g in groups if g.id in outcome.sampled_ids] if outcome.sampled_ids else groups
        return Resettle(
            id=work_id,
            place=place,
            prompt_id=outcome.prompt_id,
            revision=len(cast),
            groups=tuple(sampled),
            known=outcome.scored,
            votes=cast,
        )

    async def finish(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Returns `replaced`, `failed`, `late` or `expired` for each. An outcome is on disk before a window can use
        it."""
        mine = [self.is_under_way(outcome.place, outcome.lease_id) for outcome in outcomes]
        kept = [o for o, held in zip(outcomes, mine, strict=True) if held and o.failure is None]
        if kept:
            settled = {"settled_at": self._clock.now()}
            await self._append([resettled_record(outcome.model_copy(update=settled)) for outcome in kept])
        return [self._replace(o) if held else "expired" for o, held in zip(outcomes, mine, strict=True)]

    def is_under_way(self, place: int, work_id: str) -> bool:
        work = self._under_way.get(place)
        return work is not None and work.id == work_id

    def drop(self, place: int) -> None:
        """Stop the work at this place, without scheduling it again."""
        self._under_way.pop(place, None)

    def expire(self, place: int) -> None:
        self.drop(place)
        self._due_at[place] = self._clock.monotonic()

    def _replace(self, outcome: Outcome) -> str:
        if self.is_under_way(outcome.place, outcome.lease_id):
            self.drop(outcome.place)
        if outcome.failure is not None:
            return "failed"  # the next vote tries again
        replaced = self._replay.replace(outcome)
        if any(held.place == outcome.place for held in self._replay.held()):
            self._settle_soon(outcome.place, outcome.prompt_id, outcome.revision)
        if replaced:
            self._metrics.count("resettled_total")
            self._tally.add("resettled", 1)
        return "replaced" if replaced else "late"


def votes_of_people(reader: RunReader, prompt_id: str) -> list[Vote]:
    """All votes on a prompt but those of samples."""
    return [vote for vote in reader.children("votes", Vote, prompt_id) if vote.by != "sample"]
