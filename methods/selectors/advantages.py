"""Makes examples to reinforce from all candidates of a group, by their advantage within the group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import DropReason, History
from methods.rows import example, row


@dataclass(frozen=True)
class Advantages:
    """Of each group one example for each of the first `train_n` candidates (None: all), including losing and cut-off
    ones.

        A_i = (s_i - mean(s)) / std(s)          over the candidates trained on; std divides by their number

    Equal scores give no example. Source: GRPO, arXiv:2402.03300; without the division Dr. GRPO,
    arXiv:2503.20783. Raises: ObjectiveError for a candidate without a log-probability for each of its tokens."""

    method: str
    train_n: int | None = None
    divide_by_std: bool = True

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [example for one in scored for example in self._of(one)]

    def _of(self, scored: Scored) -> list[Example]:
        advantages = relative(scored.verdict.scores[: self.train_n], self.divide_by_std)
        if not any(advantages):
            return []
        pairs = zip(scored.group.candidates, advantages, strict=False)  # the candidates after train_n only voted
        return [
            example(self.method, scored.group, [c], [row(c, advantage=advantage, behaviour=True)])
            for c, advantage in pairs
        ]

    def differing(self, scored: Scored, history: History) -> DropReason | None:
        """The filter for this selector. Texts of people were never sampled: they have no probability to correct for."""
        if scored.group.by != "sample":
            return "not_sampled"
        return "equal_scores" if len(set(scored.verdict.scores[: self.train_n])) < 2 else None


def relative(scores: Sequence[float], divide_by_std: bool = True) -> list[float]:
    """Scores minus their mean, divided by their standard deviation; all 0 if the scores are equal."""
    if len(set(scores)) < 2:
        return [0.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores)) if divide_by_std else 1.0
    return [(score - mean) / std for score in scores]
