"""The null control of scores: they are dealt out again at random within each group."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Example, Scored
from core.protocols import History, Selector


@dataclass(frozen=True)
class Shuffled:
    """`select` with the scores permuted over the candidates that could have been chosen: those with a score and an
    answer that were not cut off. The order depends on the group's id only. So as many examples are made, and which
    candidate is which says nothing."""

    select: Selector

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return self.select([permuted(one) for one in scored], history)


def permuted(scored: Scored) -> Scored:
    verdict, scores = scored.verdict, list(scored.verdict.scores)
    places = [
        place
        for place, candidate in enumerate(scored.group.candidates)
        if math.isfinite(scores[place]) and verdict.answers[place] is not None and candidate.finish == "stop"
    ]
    dealt = random.Random(stable_id("shuffled", scored.group.id)).sample(places, len(places))
    for place, source in zip(places, dealt, strict=True):
        scores[place] = verdict.scores[source]
    return scored.model_copy(update={"verdict": verdict.model_copy(update={"scores": tuple(scores)})})
