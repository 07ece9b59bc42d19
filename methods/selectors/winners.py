"""Imitate what won."""

from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Group, Imitate, Scored
from core.protocols import History


@dataclass(frozen=True)
class Winners:
    """The distinct candidates with a positive score, as tokens, in the order sampled, at most `max_winners`."""

    method: str
    max_winners: int

    def __call__(self, scored: Scored, history: History) -> list[Example]:
        pairs = zip(scored.group.candidates, scored.verdict.scores, strict=True)
        distinct: dict[bytes, Candidate] = {}
        for candidate, score in pairs:
            if score > 0:
                distinct.setdefault(candidate.completion_ids, candidate)
        return [self._example(scored.group, candidate) for candidate in list(distinct.values())[: self.max_winners]]

    def _example(self, group: Group, candidate: Candidate) -> Imitate:
        return Imitate(
            id=stable_id("imitate", self.method, group.id, candidate.id),
            group_id=group.id,
            policy=candidate.start,
            method=self.method,
            adapter=candidate.start.adapter,
            render_id=candidate.render_id,
            context_ids=candidate.context_ids,
            completion_ids=candidate.completion_ids,
        )
