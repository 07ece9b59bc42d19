"""Makes pairs from the most diverse right and wrong texts of all rounds, so that learning does not narrow the policy.

    diversity(set) = ( distinct-1 + distinct-2 ) / 2          distinct-n: distinct n-grams / all n-grams of the set

Greedy: a random text of the side, then always the one that raises the diversity of the set most.
Source: DIVE, arXiv:2501.00747. Distinct-n favours short texts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Scored
from core.protocols import DropReason, History
from methods.monitors import distinct_n
from methods.rows import example, row

Sides = tuple[list[Candidate], list[Candidate]]


@dataclass(frozen=True)
class Diverse:
    """Of each group at most `pairs` pairs. The pool is the group and all earlier samples of the prompt, distinct by
    text. A text is right if it has today's winning answer, and wrong if it has another.

    A pair counts as old as the group that was just sampled, since old texts are used on purpose."""

    method: str
    pairs: int
    greedy: bool = True
    """False: random texts of the same pool."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [pair for one in scored for pair in self._pairs(one, history)]

    def _pairs(self, scored: Scored, history: History) -> list[Example]:
        group = scored.group
        lots = random.Random(stable_id("diverse", self.method, group.id))
        right, wrong = (self._few(side, lots) for side in sides(scored, history))
        made = [
            example(self.method, group, [chosen, rejected], [row(chosen), row(rejected)])
            for chosen, rejected in zip(right, wrong, strict=False)
        ]
        return [pair.model_copy(update={"policy": group.policy}) for pair in made]

    def _few(self, side: Sequence[Candidate], lots: random.Random) -> list[Candidate]:
        size = min(self.pairs, len(side))
        return most_diverse(side, size, lots) if self.greedy else lots.sample(side, size)


def two_sided(scored: Scored, history: History) -> DropReason | None:
    """The filter for this selector: drops groups without a right or without a wrong text in the pool."""
    if scored.group.by != "sample":
        return "not_sampled"
    return None if all(sides(scored, history)) else "one_sided"


def sides(scored: Scored, history: History) -> Sides:
    """The right and the wrong texts of the pool, oldest first. Texts without an answer are on neither side."""
    pool: dict[str, tuple[Candidate, bool]] = {}
    for one in (*history.earlier, scored):
        for candidate, answer in zip(one.group.candidates, one.verdict.answers, strict=True):
            if answer is not None and one.group.by == "sample":
                pool.setdefault(candidate.text, (candidate, answer == scored.verdict.winner))
    return [c for c, right in pool.values() if right], [c for c, right in pool.values() if not right]


def most_diverse(side: Sequence[Candidate], size: int, lots: random.Random) -> list[Candidate]:
    """The first of equals is added."""
    rest = list(side)
    taken = [rest.pop(lots.randrange(len(rest)))] if rest else []
    while rest and len(taken) < size:
        texts = [candidate.text for candidate in taken]
        scores = [diversity([*texts, candidate.text]) for candidate in rest]
        taken.append(rest.pop(scores.index(max(scores))))
    return taken


def diversity(texts: Sequence[str]) -> float:
    """The mean of distinct-1 and distinct-2 over all words of the set."""
    return ((distinct_n(texts, 1) or 0.0) + (distinct_n(texts, 2) or 0.0)) / 2
