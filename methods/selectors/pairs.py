"""Makes pairs of groups of two, of which a scorer says which candidate is better.

A pair must lie in one group, but its candidates may come from two. So the scorer adds a group of the two (`paired`),
and the filter `is_pair` keeps only such groups.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Prompt, Scored, Verdict
from core.protocols import DropReason, History
from methods.rows import example, row
from methods.samplers.iid import grouped

KIND = "pair"


@dataclass(frozen=True)
class Pairs:
    """Of each pair one example: the better candidate above the other. The base model's is marked for optimism, whether
    it won or lost."""

    method: str

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [self._pair(one) for one in scored]

    def _pair(self, scored: Scored) -> Example:
        group, (first, second) = scored.group, scored.group.candidates
        sides = [(first, row(first)), (second, row(second, optimism=group.fixed))]
        (better, chosen), (worse, rejected) = sides if scored.verdict.scores[0] > 0 else reversed(sides)
        return example(self.method, group, [better, worse], [chosen, rejected])


def paired(
    prompt: Prompt,
    candidates: tuple[Candidate, Candidate],
    answers: tuple[str | None, str | None],
    *,
    better: int,
    share: float,
    fixed: bool,
    flipped: bool = False,
) -> Scored:
    """The group of two candidates, judged. `fixed`: the second one is the base model's, on purpose. `flipped`: half of
    all pairs, drawn by their ids, get the wrong one as the better one."""
    group = grouped(prompt, list(candidates), fixed=fixed, kind=KIND)
    if flipped and random.Random(stable_id("flip", group.id)).random() < 0.5:
        better = 1 - better
    verdict = Verdict(
        scores=(float(better == 0), float(better == 1)),
        answers=answers,
        winner=answers[better] or candidates[better].id,
        share=share,
        margin=share,
    )
    return Scored(group=group, verdict=verdict)


def is_pair(scored: Scored, history: History) -> DropReason | None:
    """The filter for this selector: drops all groups that `paired` did not make."""
    group = scored.group
    return None if group.id == grouped(group.prompt, list(group.candidates), kind=KIND).id else "not_a_pair"
