"""Leaves winners out whose loss is far from that of people's texts.

DS = max(w, 1 / w)          w = valid loss / loss: how far the distribution of a sample is shifted, at least 1
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id, unpack_floats
from core.errors import ObjectiveError
from core.messages import Candidate, Example, Scored
from core.protocols import History, Selector

LEAST_LOSS = 1e-6
"""Nats per token; a smaller loss counts as this one."""


@dataclass(frozen=True)
class Near:
    """Another selector's examples of the sampled candidates whose DS is at most the tuned `ds_limit`, by the tuned
    `valid_loss`. While `ds_limit` is 0, all are kept. Texts of people are always kept."""

    of: Selector
    random_share: float | None = None
    """The null control: keep this share of the candidates, drawn by their ids, in place of the near ones."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        limit = history.tuned.get("ds_limit", 0.0)
        if limit == 0:
            return self.of(scored, history)
        valid_loss = history.tuned["valid_loss"]
        return self.of([self._near(one, limit, valid_loss) for one in scored], history)

    def _near(self, scored: Scored, limit: float, valid_loss: float) -> Scored:
        if scored.group.by == "person":
            return scored
        judged = zip(scored.group.candidates, scored.verdict.scores, strict=True)
        scores = tuple(score if self._keeps(c, limit, valid_loss) else 0.0 for c, score in judged)
        return scored.model_copy(update={"verdict": scored.verdict.model_copy(update={"scores": scores})})

    def _keeps(self, candidate: Candidate, limit: float, valid_loss: float) -> bool:
        if self.random_share is not None:
            return random.Random(stable_id("near", candidate.id)).random() < self.random_share
        return shift(loss_of(candidate), valid_loss) <= limit


def shift(loss: float, valid_loss: float) -> float:
    """DS of losses above 0."""
    ratio = valid_loss / loss
    return max(ratio, 1 / ratio)


def loss_of(candidate: Candidate) -> float:
    """The mean negative log-probability of its tokens (nats), at least `LEAST_LOSS`.

    Raises: ObjectiveError for a candidate without log-probabilities."""
    logprobs = unpack_floats(candidate.logprobs)
    if not logprobs:
        raise ObjectiveError(f"candidate {candidate.id} has no log-probabilities; sample with Sampling.logprobs=True")
    return max(LEAST_LOSS, -math.fsum(logprobs) / len(logprobs))
