"""Makes examples to imitate from the candidate with the highest score."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import History
from methods.rows import example, row
from methods.scorers.by_score import best


@dataclass(frozen=True)
class Best:
    """Of each group one example: the candidate with the highest score, which may be negative, among those with an
    answer. The first drawn of equals, so that equal texts count once."""

    method: str

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        places = [(one.group, best(one.verdict.answers, one.verdict.scores)) for one in scored]
        picked = [(group, group.candidates[place]) for group, place in places if place is not None]
        return [example(self.method, group, [candidate], [row(candidate)]) for group, candidate in picked]
