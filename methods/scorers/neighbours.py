"""Leaves samples out of the ballot that have another answer than the samples with similar texts.

    w_ij = 1 / (1 + d_ij)       d: the distance of two texts       N_i: the k nearest other samples of i
    J_i  = sum of w_ij over neighbours with another answer          p_i: the share of samples with i's answer
    z_i  = (J_i - (1 - p_i) sum w_ij) / sqrt(p_i (1 - p_i) sum w_ij^2)

z compares J with what neighbours with random answers would give. The samples with the greatest z are unsure.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.codec import stable_id
from core.messages import Candidate, Group, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.data.text import words_of
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class Neighbours:
    """Another scorer's ballot, without the unsure samples: they neither vote nor win. A sample that a person voted on
    always stays in the ballot."""

    of: Scorer
    extract: Extract
    k: int
    share: float
    """Share of the samples with an answer that are unsure at most; only those with z > 0 are."""
    shuffled: bool = False
    """The null control: each sample has the neighbours of another."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        voted = {vote.candidate_id for vote in votes.cast if vote.by != "sample"}
        removed = self._unsure([c for group in groups for c in group.candidates]) - voted
        if not removed:
            return await self.of(groups, votes, policy, known)
        sure = [_without(group, removed) for group in groups]
        whole = {group.id: group for group in groups}
        return [self._whole(one, whole.get(one.group.id)) for one in await self.of(sure, votes, policy, known)]

    def _unsure(self, candidates: Sequence[Candidate]) -> set[str | None]:
        answers = [answer_of(candidate, self.extract) for candidate in candidates]
        answered = [(c, answer) for c, answer in zip(candidates, answers, strict=True) if answer is not None]
        texts = [candidate.text for candidate, _ in answered]
        if self.shuffled:
            random.Random(stable_id("neighbours", *(c.id for c in candidates))).shuffle(texts)
        distances = [[distance(one, other) for other in texts] for one in texts]
        strange = strangeness(distances, [answer for _, answer in answered], self.k)
        return {answered[place][0].id for place in unsure(strange, self.share)}

    def _whole(self, scored: Scored, group: Group | None) -> Scored:
        """The verdict on the sure candidates as one on all candidates of the group."""
        if group is None:
            return scored
        verdict, ids = scored.verdict, [candidate.id for candidate in scored.group.candidates]
        scores = dict(zip(ids, verdict.scores, strict=True))
        shares = dict(zip(verdict.answers, verdict.shares, strict=False))
        answers = tuple(answer_of(candidate, self.extract) for candidate in group.candidates)
        update = {
            "scores": tuple(scores.get(candidate.id, 0.0) for candidate in group.candidates),
            "answers": answers,
            "shares": tuple(0.0 if answer is None else shares.get(answer, 0.0) for answer in answers),
        }
        return Scored(group=group, verdict=verdict.model_copy(update=update))


def distance(one: str, other: str) -> float:
    """1 - the share of common words and pairs of words."""
    a, b = _grams(one), _grams(other)
    return 1 - len(a & b) / len(a | b) if a | b else 0.0


def strangeness(distances: Sequence[Sequence[float]], answers: Sequence[str], k: int) -> list[float]:
    """z of each sample; 0 if all have the same answer. Of equally near neighbours, the first count."""
    counts = Counter(answers)
    return [_strangeness(i, distances[i], answers, counts[answers[i]] / len(answers), k) for i in range(len(answers))]


def unsure(strange: Sequence[float], share: float) -> list[int]:
    """The places of the strangest samples, the first of equals."""
    ranked = sorted(range(len(strange)), key=lambda place: -strange[place])
    return [place for place in ranked[: int(len(strange) * share + 1e-9)] if strange[place] > 0]


def _strangeness(i: int, distances: Sequence[float], answers: Sequence[str], prior: float, k: int) -> float:
    others = sorted((j for j in range(len(answers)) if j != i), key=lambda j: distances[j])
    weights = {j: 1 / (1 + distances[j]) for j in others[:k]}
    spread = math.sqrt(prior * (1 - prior) * math.fsum(w * w for w in weights.values()))
    against = math.fsum(w for j, w in weights.items() if answers[j] != answers[i])
    return (against - (1 - prior) * math.fsum(weights.values())) / spread if spread > 0 else 0.0


def _without(group: Group, removed: set[str | None]) -> Group:
    return group.model_copy(update={"candidates": tuple(c for c in group.candidates if c.id not in removed)})


def _grams(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {*((word,) for word in words), *pairwise(words)}
