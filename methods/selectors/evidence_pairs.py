"""Makes pairs of candidates that saw the evidence and candidates that did not."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Scored
from core.protocols import History
from methods.rows import example, row


@dataclass(frozen=True)
class EvidencePairs:
    """The first candidate of the first group with the first of the second group, and so on, each with an answer.

    keep   score(seeing) > score(blind) + margin          the seeing one is chosen
    flip   score(blind) > score(seeing) + margin          the blind one is chosen
    drop   otherwise
    """

    method: str
    margin: float
    shuffled: bool = False
    """The null control: which side of a pair is chosen is drawn by lot."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        if len(scored) < 2:
            return []
        seeing, blind = map(_answered, scored)
        lots = random.Random(stable_id("evidence", self.method, scored[0].group.id))
        pairs: dict[tuple[bytes, ...], list[Candidate]] = {}
        for (one, high), (other, low) in zip(seeing, blind, strict=False):
            if abs(high - low) > self.margin:
                pair = [one, other] if high > low else [other, one]
                pair = lots.sample(pair, 2) if self.shuffled else pair
                pairs.setdefault(tuple(candidate.completion_ids for candidate in pair), pair)
        return [example(self.method, scored[0].group, pair, [row(c) for c in pair]) for pair in pairs.values()]


def _answered(scored: Scored) -> list[tuple[Candidate, float]]:
    judged = zip(scored.group.candidates, scored.verdict.answers, scored.verdict.scores, strict=True)
    return [(candidate, score) for candidate, answer, score in judged if answer is not None]
