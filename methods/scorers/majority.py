"""Majority vote: samples and people vote in one ballot, and every candidate with the winning answer gets score 1.

Self-consistency, arXiv 2203.11171. Each sample casts one vote for its own answer. A person or a verifier votes for an
answer, or for a candidate and thereby for its answer; methods.ballot limits the weight of people. An answer's share is
its net weight divided by all positive weight cast, so samples without an answer and votes against it both lower it. An
answer without positive net weight cannot win. Ties go to the first answer, in the order of candidates, then of votes.

If no candidate has an answer, samples cannot vote. The ballot is then over the candidates themselves: only people and
verifiers vote, and the winner needs a quorum. A candidate that was cut off has no answer and cannot win. Corrections
that enough people agree on form an extra group.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.codec import stable_id
from core.config import VotesConfig
from core.errors import PromptError
from core.messages import Candidate, Group, Scored, Verdict, Vote
from core.protocols import Extract, Policy, Votes
from methods.ballot import backed, corrections, weighed

GUARDED = VotesConfig()


@dataclass(frozen=True)
class Result:
    """The winning choice of a ballot, its share, and its lead over the runner-up."""

    winner: str | None
    share: float
    margin: float
    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """The share of every choice with positive net weight."""


@dataclass(frozen=True)
class Majority:
    """One ballot over all groups of a prompt."""

    extract: Extract
    votes: VotesConfig = GUARDED

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        candidates = [candidate for group in groups for candidate in group.candidates]
        answers = {candidate.id: answer_of(candidate, self.extract) for candidate in candidates}
        if any(answers.values()):
            standing, result = answers, self._among_answers(answers, votes.cast)
        else:
            standing = {candidate.id: candidate.id if candidate.finish == "stop" else None for candidate in candidates}
            result = self._among_candidates(standing, votes.cast)
        written = corrections(votes.cast, self.votes, self.extract if any(answers.values()) else None)
        extra = await _written(groups, written, self.extract, policy) if written and groups else []
        return [*(_scored(group, answers, standing, result) for group in groups), *extra]

    def _among_answers(self, answers: dict[str, str | None], cast: Sequence[Vote]) -> Result:
        relevant = [vote for vote in cast if _is_relevant(vote, answers)]
        people = [(self._choice(vote, answers), weight) for vote, weight in self._weighed(relevant, len(answers))]
        return count([*((answer, 1.0) for answer in answers.values()), *people])

    def _among_candidates(self, standing: dict[str, str | None], cast: Sequence[Vote]) -> Result:
        relevant = [vote for vote in cast if vote.candidate_id in standing]
        weights = self._weighed(relevant, None)
        result = count((standing[vote.candidate_id or ""], weight) for vote, weight in weights)
        in_favor = [vote for vote, weight in weights if weight > 0 and vote.candidate_id == result.winner]
        return result if backed(in_favor, self.votes) else Result(None, 0.0, 0.0)

    def _weighed(self, cast: Sequence[Vote], samples: int | None) -> list[tuple[Vote, float]]:
        return weighed(cast, samples, self.votes)

    def _choice(self, vote: Vote, answers: dict[str, str | None]) -> str | None:
        """The answer that a vote is for. A person may type a bare answer, or a sentence that ends with one."""
        text = vote.answer if vote.answer is not None else vote.correction
        if text is not None:
            return self.extract(text, stated=True)
        return answers.get(vote.candidate_id or "")


def answer_of(candidate: Candidate, extract: Extract) -> str | None:
    """The candidate's answer; None if it has none or was cut off."""
    return extract(candidate.text) if candidate.finish == "stop" else None


def count(ballot: Iterable[tuple[str | None, float]]) -> Result:
    """The result of pairs of choice and weight. The choice None only adds to the weight cast."""
    net: dict[str, float] = {}
    total = 0.0
    for choice, weight in ballot:
        total += max(0.0, weight)
        if choice is not None:
            net[choice] = net.get(choice, 0.0) + weight
    ranked = sorted(
        (pair for pair in net.items() if pair[1] > 0), key=lambda pair: -pair[1]
    )  # stable: ties keep their order
    if not ranked:
        return Result(None, 0.0, 0.0)
    (winner, weight), runner_up = ranked[0], ranked[1][1] if len(ranked) > 1 else 0.0
    shares = {choice: min(1.0, one / total) for choice, one in ranked}
    return Result(winner, shares[winner], min(1.0, (weight - runner_up) / total), shares)


def _is_relevant(vote: Vote, answers: dict[str, str | None]) -> bool:
    return vote.answer is not None or vote.correction is not None or vote.candidate_id in answers


async def _written(groups: Sequence[Group], texts: Sequence[str], extract: Extract, policy: Policy) -> list[Scored]:
    """People's texts as a winning group, attributed to the oldest version that sampled the other groups. Texts that are
    too long for the engine are left out."""
    prompt, ref = groups[0].prompt, min((group.policy for group in groups), key=lambda ref: ref.version)
    candidates: list[Candidate] = []
    for text in texts:
        try:
            candidate = await policy.render(prompt, text)
        except PromptError:
            continue
        candidates.append(candidate.model_copy(update={"start": ref, "end": ref}))
    if not candidates:
        return []
    answers = tuple(extract(candidate.text) for candidate in candidates)
    group = Group(
        id=stable_id("written", groups[0].id, *(candidate.id for candidate in candidates)),
        prompt=prompt,
        candidates=tuple(candidates),
        by="person",
    )
    winner = answers[0] or candidates[0].id
    scores = (1.0,) * len(candidates)
    return [Scored(group=group, verdict=Verdict(scores=scores, answers=answers, winner=winner, share=1, margin=1))]


def _scored(group: Group, answers: dict[str, str | None], standing: dict[str, str | None], result: Result) -> Scored:
    won = [result.winner is not None and standing[c.id] == result.winner for c in group.candidates]
    verdict = Verdict(
        scores=tuple(float(one) for one in won),
        answers=tuple(answers[c.id] for c in group.candidates),
        winner=result.winner,
        share=result.share,
        margin=result.margin,
        shares=tuple(result.shares.get(standing[c.id] or "", 0.0) for c in group.candidates),
    )
    return Scored(group=group, verdict=verdict)
