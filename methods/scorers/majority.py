"""The vote: samples and people in one ballot, and a score of 1 for every candidate that says what the winner says.

Self-consistency, arXiv 2203.11171. Each sample casts one vote for its own answer; a person or a verifier casts for an
answer, or for a candidate and so for its answer, with any weight. An answer's net weight over all positive weight cast
is its share, so a sample without an answer and a vote against both make a ballot less sure. No net weight, no winner;
equals go to the answer named first, in the order of the candidates and then of the votes cast.

Where no candidate has an answer the samples have nothing to say about each other: the ballot is then over the
candidates themselves, and only people and verifiers vote. A candidate that was cut off has no answer and cannot win.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.answers import folded
from core.messages import Candidate, Group, Scored, Verdict, Vote
from core.protocols import Extract, Policy, Votes


@dataclass(frozen=True)
class Result:
    winner: str | None
    share: float
    margin: float


@dataclass(frozen=True)
class Majority:
    """One ballot over all groups of a prompt."""

    extract: Extract

    async def __call__(self, groups: Sequence[Group], votes: Votes, policy: Policy) -> list[Scored]:
        candidates = [candidate for group in groups for candidate in group.candidates]
        answers = {candidate.id: answer_of(candidate, self.extract) for candidate in candidates}
        cast = [vote for vote in votes.cast if vote.by != "sample"]  # the samples vote by what they are, once
        if any(answers.values()):
            meant = [(self._meant(vote, answers), vote.weight) for vote in cast if _says(vote, answers)]
            ballot = [(answer, 1.0) for answer in answers.values()] + meant
            forms = {folded(answer): answer for answer, _ in reversed(ballot) if answer is not None}
            standing = {i: folded(answer) if answer else None for i, answer in answers.items()}
            result = count((folded(answer) if answer else None, weight) for answer, weight in ballot)
            winner = forms.get(result.winner) if result.winner is not None else None
        else:
            standing = {candidate.id: candidate.id if candidate.finish == "stop" else None for candidate in candidates}
            result = count((standing[i], vote.weight) for vote in cast if (i := vote.candidate_id) in standing)
            winner = result.winner
        return [_scored(group, answers, standing, result, winner) for group in groups]

    def _meant(self, vote: Vote, answers: dict[str, str | None]) -> str | None:
        """What a vote is for: a person may type a bare answer, or a sentence that ends in one."""
        if vote.answer is not None:
            return self.extract(vote.answer) or folded(vote.answer) or None
        return answers.get(vote.candidate_id or "")


def answer_of(candidate: Candidate, extract: Extract) -> str | None:
    return extract(candidate.text) if candidate.finish == "stop" else None


def count(ballot: Iterable[tuple[str | None, float]]) -> Result:
    """The winner among pairs of what is voted for and a weight; None counts as cast, for nobody."""
    net: dict[str, float] = {}
    total = 0.0
    for choice, weight in ballot:
        total += max(0.0, weight)
        if choice is not None:
            net[choice] = net.get(choice, 0.0) + weight
    ranked = sorted((pair for pair in net.items() if pair[1] > 0), key=lambda pair: -pair[1])  # stable: first is first
    if not ranked:
        return Result(None, 0.0, 0.0)
    (winner, weight), runner_up = ranked[0], ranked[1][1] if len(ranked) > 1 else 0.0
    return Result(winner, min(1.0, weight / total), min(1.0, (weight - runner_up) / total))


def _says(vote: Vote, answers: dict[str, str | None]) -> bool:
    return vote.answer is not None or vote.candidate_id in answers


def _scored(
    group: Group, answers: dict[str, str | None], standing: dict[str, str | None], result: Result, winner: str | None
) -> Scored:
    won = [result.winner is not None and standing[c.id] == result.winner for c in group.candidates]
    verdict = Verdict(
        scores=tuple(float(one) for one in won),
        answers=tuple(answers[c.id] for c in group.candidates),
        winner=winner,
        share=result.share,
        margin=result.margin,
    )
    return Scored(group=group, verdict=verdict)
