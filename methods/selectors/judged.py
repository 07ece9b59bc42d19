"""Makes an example of every judged candidate, with its score as the advantage."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import DropReason, History
from methods.rows import example, row


@dataclass(frozen=True)
class Judged:
    """Of each group one example for each candidate whose score is not 0. Equal tokens give several."""

    method: str

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [
            example(self.method, one.group, [candidate], [row(candidate, advantage=score)])
            for one in scored
            for candidate, score in zip(one.group.candidates, one.verdict.scores, strict=True)
            if score != 0
        ]


def is_judged(scored: Scored, history: History) -> DropReason | None:
    """The filter for this selector: drops groups without a judgment."""
    return None if any(scored.verdict.scores) else "not_judged"
