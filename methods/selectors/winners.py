"""Makes examples to imitate from winning candidates."""

from collections import Counter
from dataclasses import dataclass

from core.codec import example_id
from core.messages import Candidate, Example, Group, Imitate, Scored
from core.protocols import History


@dataclass(frozen=True)
class Winners:
    """The first `max_winners` candidates with a positive score, distinct by their tokens, in the order sampled."""

    method: str
    max_winners: int
    distinct: bool = True
    """False: a candidate is weighted by the number of times it was sampled."""

    def __call__(self, scored: Scored, history: History) -> list[Example]:
        pairs = zip(scored.group.candidates, scored.verdict.scores, strict=True)
        distinct: dict[bytes, Candidate] = {}
        times: Counter[bytes] = Counter()
        for candidate, score in pairs:
            if score > 0:
                distinct.setdefault(candidate.completion_ids, candidate)
                times[candidate.completion_ids] += 1
        kept = list(distinct.values())[: self.max_winners]
        return [self._example(scored.group, c, 1 if self.distinct else times[c.completion_ids]) for c in kept]

    def _example(self, group: Group, candidate: Candidate, weight: float) -> Imitate:
        return Imitate(
            id=example_id("imitate", self.method, group.id, candidate.id),
            group_id=group.id,
            policy=candidate.start,
            method=self.method,
            adapter=candidate.start.adapter,
            weight=weight,
            render_id=candidate.render_id,
            context_ids=candidate.context_ids,
            completion_ids=candidate.completion_ids,
        )
