"""Makes examples to reinforce from all candidates of a group, by their advantage within the group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import example_id
from core.errors import ObjectiveError
from core.messages import Candidate, Example, Group, Reinforce, Scored
from core.protocols import DropReason, History


@dataclass(frozen=True)
class Advantages:
    """One example for each of the first `train_n` candidates (None: all), including losing and cut-off ones.

        A_i = (s_i - mean(s)) / std(s)          over the candidates trained on; std divides by their number

    Equal scores give no example. Source: GRPO, arXiv:2402.03300; without the division Dr. GRPO,
    arXiv:2503.20783. Raises: ObjectiveError for a candidate without a log-probability for each of its tokens."""

    method: str
    train_n: int | None = None
    divide_by_std: bool = True

    def __call__(self, scored: Scored, history: History) -> list[Example]:
        advantages = relative(scored.verdict.scores[: self.train_n], self.divide_by_std)
        if not any(advantages):
            return []
        pairs = zip(scored.group.candidates, advantages, strict=False)  # the candidates after train_n only voted
        return [self._example(scored.group, candidate, advantage) for candidate, advantage in pairs]

    def differing(self, scored: Scored) -> DropReason | None:
        """The filter for this selector. Texts of people were never sampled: they have no probability to correct for."""
        if scored.group.by != "sample":
            return "not_sampled"
        return "equal_scores" if len(set(scored.verdict.scores[: self.train_n])) < 2 else None

    def _example(self, group: Group, candidate: Candidate, advantage: float) -> Reinforce:
        if len(candidate.logprobs) != len(candidate.completion_ids):
            raise ObjectiveError(
                f"candidate {candidate.id} has {len(candidate.completion_ids) // 4} tokens and "
                f"{len(candidate.logprobs) // 4} log-probabilities; sample with Sampling.logprobs=True"
            )
        return Reinforce(
            id=example_id("reinforce", self.method, group.id, candidate.id),
            group_id=group.id,
            policy=candidate.start,
            method=self.method,
            adapter=candidate.start.adapter,
            render_id=candidate.render_id,
            context_ids=candidate.context_ids,
            completion_ids=candidate.completion_ids,
            logprobs=candidate.logprobs,
            advantage=advantage,
        )


def relative(scores: Sequence[float], divide_by_std: bool = True) -> list[float]:
    """Scores minus their mean, divided by their standard deviation; all 0 if the scores are equal."""
    if len(set(scores)) < 2:
        return [0.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores)) if divide_by_std else 1.0
    return [(score - mean) / std for score in scores]
