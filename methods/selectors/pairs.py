"""Makes an example of each group of two of which a scorer said which candidate is better (methods.scorers.paired)."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import DropReason, History
from methods.rows import example, row
from methods.samplers.iid import grouped
from methods.scorers.paired import KIND


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


def is_pair(scored: Scored, history: History) -> DropReason | None:
    """The filter for this selector: drops all groups that `paired` did not make."""
    group = scored.group
    return None if group.id == grouped(group.prompt, list(group.candidates), kind=KIND).id else "not_a_pair"
