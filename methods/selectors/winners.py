"""Makes examples to imitate from winning candidates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Candidate, Example, Scored
from core.protocols import History
from methods.rows import example, row


@dataclass(frozen=True)
class Winners:
    """Of each group the first `max_winners` candidates with a positive score, distinct by their tokens, in the order
    sampled."""

    method: str
    max_winners: int
    distinct: bool = True
    """False: a candidate is weighted by the number of times it was sampled."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [example for one in scored for example in self._of(one)]

    def _of(self, scored: Scored) -> list[Example]:
        distinct: dict[bytes, Candidate] = {}
        times: Counter[bytes] = Counter()
        for candidate, score in zip(scored.group.candidates, scored.verdict.scores, strict=True):
            if score > 0:
                distinct.setdefault(candidate.completion_ids, candidate)
                times[candidate.completion_ids] += 1
        return [
            example(self.method, scored.group, [c], [row(c)], weight=1 if self.distinct else times[c.completion_ids])
            for c in list(distinct.values())[: self.max_winners]
        ]
