"""Votes of people as the buffer keeps them: the prompts that they are on, and how many of them count.

The votes are rows in the store's table `votes`. The fact `voted:PROMPT` holds how many of them count. So after a
restart the buffer finds the prompts to settle again: those in the buffer that were settled with fewer votes.
"""

import asyncio
from collections import ChainMap, Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from actors.replay.resettling import Resettling, votes_of_people
from actors.replay.vote_tally import VoteTally
from core.clock import Clock
from core.config import VotesConfig
from core.errors import ArtifactError
from core.messages import Vote
from core.metrics import Metrics
from core.store.facts import FirstVote, PromptVoted
from core.store.reader import RunReader
from core.store.records import Record, Row, message
from methods.ballot import Budgets
from training.replay.replay import Replay


class VoteCounts(TypedDict):
    person_votes: int
    person_votes_left_out: int
    prompts_voted: int
    prompts_voted_waiting: int
    to_resettle: int
    resettled: int


@dataclass
class Voted:
    """People's votes on one prompt."""

    kept: int = 0
    """Votes in the store that count."""
    since: dict[str, int] = field(default_factory=dict[str, int])
    """Voter -> the window in which a vote of that voter first counted on this prompt."""


@dataclass
class Draft:
    """The counts of one prompt, including a batch of votes that is not on disk yet."""

    kept: int
    new: dict[str, int]
    """The part of `since` that this batch adds."""
    since: MutableMapping[str, int]


def facts(prompt_id: str, kept: int, since: Mapping[str, int]) -> list[Record]:
    """The facts of one prompt. `since`: the voters to write down."""
    firsts = [FirstVote(prompt=prompt_id, voter=voter, window=window) for voter, window in since.items()]
    return [
        PromptVoted(kept=kept).record(prompt_id),
        *(first.record(first_vote_key(prompt_id, first.voter)) for first in firsts),
    ]


def first_vote_key(prompt_id: str, voter: str) -> str:
    return f"{prompt_id}/{voter}"


class LateVotes:
    """`append` returns when its records are on disk. Calls of `cast` must not overlap."""

    def __init__(
        self,
        run_dir: Path,
        append: Callable[[Sequence[Row]], Awaitable[None]],
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
        """Prompts with votes that were written and not acknowledged."""
        self._budgets = Budgets(config.ballots_per_window)
        self._reader: RunReader | None = None
        """Kept open between calls of `cast`: opening the file takes ten times as long as reading from it."""
        self.tally = VoteTally()
        self.resettling = Resettling(run_dir, append, replay, self._kept, self.tally, metrics, clock)

    @property
    def any(self) -> bool:
        return bool(self._voted)

    @property
    def prompts(self) -> list[str]:
        """Prompts that people voted on."""
        return list(self._voted)

    def votes_on(self, prompt_id: str) -> list[Vote]:
        """The votes that count, read from the store."""
        if prompt_id not in self._voted:
            return []
        with closing(RunReader(self._run_dir)) as reader:
            return [vote for vote in votes_of_people(reader, prompt_id) if vote.counted]

    # --- voting ---

    async def cast(self, votes: Sequence[Vote], beside: Sequence[Row] = ()) -> list[str]:
        """Store a batch of votes and the rows in `beside`, all or none. The rows are written even if no vote is new.
        The store decides which votes are new, so a retry is safe."""
        prompts = list(dict.fromkeys(vote.prompt_id for vote in votes))
        unsure = [prompt for prompt in prompts if prompt in self._unsure]
        seen, kept = await asyncio.to_thread(self._known, [vote.id for vote in votes], unsure)
        drafts = {prompt: self._draft(prompt, kept) for prompt in prompts}
        stamped = self._stamp(votes, seen, drafts)
        await self._write(stamped, drafts, beside)
        self._accept(drafts)
        held = self.resettling.voted(prompts)
        results = [_result(vote, held) for vote in stamped]
        self._meter(votes, results)
        return results

    def _known(self, ids: Sequence[str], unsure: Iterable[str]) -> tuple[set[str], dict[str, int]]:
        """The votes that the store already holds; and how many count on each prompt in `unsure`, where an
        unacknowledged write may have reached the disk."""
        reader, self._reader = self._reader or RunReader(self._run_dir), None
        try:
            kept = {prompt: sum(vote.counted for vote in votes_of_people(reader, prompt)) for prompt in unsure}
            seen = reader.which("votes", ids)
        except BaseException:  # a reader that failed is not used again
            reader.close()
            raise
        self._reader = reader
        return seen, kept

    def _draft(self, prompt: str, kept: Mapping[str, int]) -> Draft:
        """Does not copy the earlier voters, so that the cost of a vote does not grow with their number."""
        voted, new = self._of(prompt), dict[str, int]()
        return Draft(kept.get(prompt, voted.kept), new, ChainMap(new, voted.since))

    def _stamp(self, votes: Sequence[Vote], seen: set[str], drafts: Mapping[str, Draft]) -> list[Vote | None]:
        """Mark each vote as counted or not; None for a duplicate."""
        stamped: list[Vote | None] = []
        for vote in votes:
            stamped.append(None if vote.id in seen else self._stamped(vote, drafts[vote.prompt_id]))
            seen.add(vote.id)
        return stamped

    def _stamped(self, vote: Vote, draft: Draft) -> Vote:
        window = self._replay.windows_drawn
        counted = vote.by == "verifier" or self._budgets.allows(vote.voter, draft.since, window)
        draft.kept += counted
        return vote.model_copy(update={"counted": counted, "cast_at": vote.cast_at or self._clock.now()})

    async def _write(self, stamped: Sequence[Vote | None], drafts: Mapping[str, Draft], beside: Sequence[Row]) -> None:
        votes = [message("votes", vote.id, vote.prompt_id, vote) for vote in stamped if vote is not None]
        if votes:
            self._unsure.update(drafts)
            counts = [each for prompt, draft in drafts.items() for each in facts(prompt, draft.kept, draft.new)]
            await self._append_votes([*beside, *votes, *counts])
        elif beside:
            await self._append(beside)

    async def _append_votes(self, rows: Sequence[Row]) -> None:
        try:
            await self._append(rows)
        except BaseException:  # not acknowledged: give the voters their budget back
            self._restore_budgets()
            raise

    def _accept(self, drafts: Mapping[str, Draft]) -> None:
        """The batch is on disk: take its counts over."""
        self._unsure.difference_update(drafts)
        for prompt, draft in drafts.items():
            if draft.kept:
                voted = self._voted.setdefault(prompt, Voted())
                voted.kept = draft.kept
                voted.since.update(draft.new)

    def _meter(self, votes: Sequence[Vote], results: Sequence[str]) -> None:
        kinds = Counter(vote.by for vote, result in zip(votes, results, strict=True) if result != "duplicate")
        for by, n in kinds.items():
            self._metrics.count("votes_total", n, by=by)
        self.tally.add("votes", kinds.total())
        self.tally.add("left_out", results.count("left_out"))

    def _of(self, prompt_id: str) -> Voted:
        return self._voted.get(prompt_id) or Voted()

    def _kept(self, prompt_id: str) -> int:
        return self._of(prompt_id).kept

    # --- taking back ---

    async def withdraw(self, name: str, prompts: Sequence[str]) -> None:
        """The votes of this voter were removed from the store: recount the others, and settle the prompts again."""
        _, kept = await asyncio.to_thread(self._known, [], prompts)
        for prompt in prompts:
            since = {voter: window for voter, window in self._of(prompt).since.items() if voter != name}
            self._voted[prompt] = Voted(kept[prompt], since)
        if prompts:
            left = {prompt: self._voted[prompt] for prompt in prompts}
            await self._append([each for p, voted in left.items() for each in facts(p, voted.kept, voted.since)])
        self.resettling.withdrawn(prompts)

    # --- start and stop ---

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def restore(self, voted: Mapping[str, PromptVoted], firsts: Iterable[FirstVote]) -> None:
        """Restore from the facts. Call it after the replay is restored."""
        self._voted = {prompt: Voted(fact.kept) for prompt, fact in voted.items()}
        for first in firsts:
            self._voted.setdefault(first.prompt, Voted()).since[first.voter] = first.window
        self._restore_budgets()
        self.resettling.voted(self._voted)

    def _restore_budgets(self) -> None:
        window = self._replay.windows_drawn
        self._budgets.restore((voted.since for voted in self._voted.values()), window)

    def counts(self) -> VoteCounts:
        held = {explored.prompt_id for explored in self._replay.held()}
        return {
            "person_votes": sum(voted.kept for voted in self._voted.values()),
            "person_votes_left_out": self.tally.totals["left_out"],
            "prompts_voted": len(self._voted),
            "prompts_voted_waiting": len(self._voted.keys() - held),
            "to_resettle": len(self.resettling),
            "resettled": self.tally.totals["resettled"],
        }

    def take_news(self) -> dict[str, int]:
        """The counts for one event, since the last one."""
        return {**self.tally.take(), "prompts": len(self._voted), "to_resettle": len(self.resettling)}


def check(votes: Sequence[Vote]) -> None:
    """Raises: ArtifactError for a vote that is not a complete vote of a person or a verifier."""
    for vote in votes:
        if vote.by == "sample":
            raise ArtifactError(
                f"vote {vote.id!r} is by a sample; expected a person or a verifier, collectors deliver votes of samples"
            )
        if not vote.id or not vote.prompt_id:
            raise ArtifactError(f"vote {vote.id!r} on prompt {vote.prompt_id!r}: give it an id, and name its prompt")
        if vote.candidate_id is None and vote.answer is None and vote.correction is None:
            raise ArtifactError(f"vote {vote.id!r} says nothing; give it an answer, a candidate_id or a correction")


def _result(vote: Vote | None, held: set[str]) -> str:
    if vote is None:
        return "duplicate"
    if not vote.counted:
        return "left_out"
    return "counted" if vote.prompt_id in held else "waiting"
