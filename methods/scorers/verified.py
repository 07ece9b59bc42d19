"""Candidates that pass a vote, if there is one, and all verifiers: score 1, the others 0."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Group, Scored, Verdict
from core.protocols import Extract, Policy, Scorer, Votes
from methods.reweight import Threshold, both
from methods.scorers.judge import is_judgement
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class Verified:
    """`base` says who is asked about: candidates with a positive score. Each verifier scores them, `keep` says which
    scores survive, and a candidate must survive all verifiers. Judgements of the verifiers are returned too; texts of
    people, which no policy sampled, are not judged."""

    base: Scorer
    verifiers: Sequence[Scorer]
    keep: Threshold

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        scored = await self.base(groups, votes, policy, known)
        asked = [_winning(one) for one in scored if one.group.by == "sample"]
        names = [candidate.id for group in asked for candidate in group.candidates]
        weights, judgements = [1.0] * len(names), dict[str, Scored]()
        for verifier in self.verifiers:
            found = await verifier(asked, votes, policy, known)
            scores = [score for one in found if not is_judgement(one) for score in one.verdict.scores]
            weights = both(weights, self.keep.weights(scores))
            judgements.update({one.group.id: one for one in found if is_judgement(one)})
        survived = dict(zip(names, weights, strict=True))
        return [*(_surviving(one, survived) for one in scored), *judgements.values()]


@dataclass(frozen=True)
class Answered:
    """Every finished candidate with an answer gets score 1. There is no vote."""

    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        return [self._of(group) for group in groups]

    def _of(self, group: Group) -> Scored:
        answers = tuple(answer_of(candidate, self.extract) for candidate in group.candidates)
        scores = tuple(float(answer is not None) for answer in answers)
        return Scored(group=group, verdict=Verdict(scores=scores, answers=answers, winner=None, share=0, margin=0))


def _winning(scored: Scored) -> Group:
    pairs = zip(scored.group.candidates, scored.verdict.scores, strict=True)
    return scored.group.model_copy(update={"candidates": tuple(c for c, score in pairs if score > 0)})


def _surviving(scored: Scored, survived: dict[str, float]) -> Scored:
    if scored.group.by == "person":
        return scored
    scores = tuple(survived.get(candidate.id, 0.0) for candidate in scored.group.candidates)
    return scored.model_copy(update={"verdict": scored.verdict.model_copy(update={"scores": scores})})
