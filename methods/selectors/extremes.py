"""Makes pairs by score: one of the best candidates of a group above one of the worst."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Candidate, Example, Scored
from core.protocols import DropReason, History
from methods.rows import example, row
from methods.scorers.judge import is_judgement


@dataclass(frozen=True)
class Extremes:
    """Of each group the first candidate with the highest score above the first with the lowest. Equal scores give no
    pair. Candidates without a score (not finite) take no part, and one without an answer is never chosen.

    `lengths`: choose the shortest of the best tier instead, and reject the longest of the worst. With S the scores and
    rho the tuned value of that name:

        best: S >= (1 - rho) max S + rho min S          worst: S <= (1 - rho) min S + rho max S

    Source: Meta-Rewarding, arXiv 2407.19594, section 2.1."""

    method: str
    lengths: bool = False
    max_chosen: int | None = None
    """Greatest number of characters of the chosen candidate; a longer one gives no pair."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        found = ((one, self._pair(one, history)) for one in scored if not is_judgement(one))
        return [
            example(self.method, one.group, [chosen, rejected], [row(chosen), row(rejected)])
            for one, pair in found
            if pair is not None
            for chosen, rejected in (pair,)
        ]

    def differing(self, scored: Scored, history: History) -> DropReason | None:
        """The filter for this selector."""
        return None if is_judgement(scored) or self._pair(scored, history) else "no_pair"

    def _pair(self, scored: Scored, history: History) -> tuple[Candidate, Candidate] | None:
        group, verdict = scored.group, scored.verdict
        judged = [index for index, score in enumerate(verdict.scores) if math.isfinite(score)]
        scores = [verdict.scores[index] for index in judged]
        allowed = [verdict.answers[index] is not None for index in judged]
        if self.lengths:
            sizes = [len(group.candidates[index].text) for index in judged]
            pair = tiers(scores, sizes, history.tuned.get("rho", 0.0), allowed)
        else:
            pair = extremes(scores, allowed)
        if pair is None:
            return None
        chosen, rejected = (group.candidates[judged[place]] for place in pair)
        too_long = self.max_chosen is not None and len(chosen.text) > self.max_chosen
        return None if too_long else (chosen, rejected)


def extremes(scores: Sequence[float], allowed: Sequence[bool] | None = None) -> tuple[int, int] | None:
    """The places of the first highest score among those allowed and of the first lowest; None if they are equal."""
    choices = [place for place in range(len(scores)) if allowed is None or allowed[place]]
    if not choices:
        return None
    chosen = max(choices, key=lambda place: scores[place])
    rejected = min(range(len(scores)), key=lambda place: scores[place])
    return (chosen, rejected) if scores[chosen] > scores[rejected] else None


def tiers(
    scores: Sequence[float], lengths: Sequence[int], rho: float, allowed: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """The places of the shortest of the best tier and of the longest of the worst, the first of equals; None if all
    scores are equal, or nothing in the best tier is allowed."""
    if not scores or max(scores) == min(scores):
        return None
    high, low = max(scores), min(scores)
    places = range(len(scores))
    best = [p for p in places if scores[p] >= high - rho * (high - low) and (allowed is None or allowed[p])]
    worst = [p for p in places if scores[p] <= low + rho * (high - low)]
    if not best:
        return None
    chosen, rejected = min(best, key=lambda p: lengths[p]), max(worst, key=lambda p: lengths[p])
    return (chosen, rejected) if scores[chosen] > scores[rejected] else None
