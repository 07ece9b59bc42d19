"""Makes pairs: a candidate of the most common answer above one of the least common answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Scored
from core.protocols import DropReason, History
from methods.rows import example, row


@dataclass(frozen=True)
class BestWorst:
    """Of each group one pair, weighted by how much more of the vote the chosen answer has. Which candidate speaks for
    an answer is drawn by the group's id, so that settling again makes the same pair.

        w = V(chosen) - V(rejected)          V: an answer's share of the ballot
    """

    method: str
    weighted: bool = True
    """False: all pairs weigh 1."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [pair for one in scored if (pair := self._pair(one)) is not None]

    def _pair(self, scored: Scored) -> Example | None:
        group, least = scored.group, worst(scored)
        if least is None:
            return None
        lots = random.Random(stable_id("pair", self.method, group.id))
        chosen = lots.choice(members(scored, scored.verdict.winner))
        rejected = lots.choice(members(scored, least))
        weight = scored.verdict.share - share_of(scored, least) if self.weighted else 1.0
        return example(self.method, group, [chosen, rejected], [row(chosen), row(rejected)], weight=max(0.0, weight))


def contested(scored: Scored, history: History) -> DropReason | None:
    """The filter for pairs: drops groups whose samples do not hold both the winning answer and a rarer one."""
    return "no_loser" if worst(scored) is None else None


def members(scored: Scored, answer: str | None) -> list[Candidate]:
    """The candidates with this answer."""
    return [c for c, a in zip(scored.group.candidates, scored.verdict.answers, strict=True) if a == answer]


def share_of(scored: Scored, answer: str) -> float:
    shares = zip(scored.verdict.answers, scored.verdict.shares, strict=False)
    return next((share for a, share in shares if a == answer), 0.0)


def worst(scored: Scored) -> str | None:
    """The answer with the smallest share, the first of equals; None unless a sample has the winner and another has less
    of the vote."""
    verdict = scored.verdict
    answers = [answer for answer in dict.fromkeys(verdict.answers) if answer is not None]
    if verdict.winner not in answers:
        return None
    least = min(answers, key=lambda answer: share_of(scored, answer))
    return least if share_of(scored, least) < verdict.share else None
