"""Makes pairs of samples with their rewards, for an objective that learns the difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Candidate, Example, Scored
from core.protocols import History
from methods.rows import example, row

Rewarded = tuple[Candidate, float]


@dataclass(frozen=True)
class RewardedPairs:
    """Each sample with an answer is in at most one pair. One group: its first and second sample, its third and fourth,
    and so on. Two arms: the samples of the policy's group with those of the fixed group, which are marked for the
    optimism. Rewards are the scores; equal texts make no pair."""

    method: str

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        fixed = [one for one in scored if one.group.fixed]
        own = [one for one in scored if not one.group.fixed]
        home = [*own, *fixed][:1]
        if own and fixed:
            pairs = zip(_rewarded(own), _rewarded(fixed), strict=False)
        else:
            samples = _rewarded(home)
            pairs = zip(samples[::2], samples[1::2], strict=False)
        return [self._pair(home[0], *pair, marked=bool(own and fixed)) for pair in pairs if _differ(*pair)]

    def _pair(self, home: Scored, first: Rewarded, second: Rewarded, *, marked: bool) -> Example:
        (one, reward), (other, others) = first, second
        rows = [row(one, advantage=reward), row(other, advantage=others, optimism=marked)]
        return example(self.method, home.group, [one, other], rows)


def _rewarded(scored: Sequence[Scored]) -> list[Rewarded]:
    verdicts = [(one.group.candidates, one.verdict) for one in scored]
    judged = [each for found, v in verdicts for each in zip(found, v.answers, v.scores, strict=True)]
    return [(candidate, score) for candidate, answer, score in judged if answer is not None]


def _differ(first: Rewarded, second: Rewarded) -> bool:
    return first[0].completion_ids != second[0].completion_ids
