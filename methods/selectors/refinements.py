"""Makes examples of winning samples, and of winning refinements as if they had been the first answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Scored
from core.protocols import History
from methods.rows import continued, example
from methods.selectors.winners import Winners

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SHORTER = 2
"""A refinement may have so many numbers fewer than the shorter of the answer that it refines and a winning one."""


@dataclass(frozen=True)
class Refinements:
    """`winners` of the first samples, and each winning refinement behind the plain question: neither the critique nor
    the answer that it refines is in the context. A refinement that leaves the steps out is dropped. Source:
    AutoMathCritique, arXiv 2411.16579."""

    method: str
    winners: Winners

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        first = [one for one in scored if one.group.parent is None]
        made = self.winners(first, history)
        sampled = {c.id: c for one in first for c in one.group.candidates}
        won = [c for one in first for c, s in zip(one.group.candidates, one.verdict.scores, strict=True) if s > 0]
        for one in scored:
            before = sampled.get(one.group.parent or "")
            if before is None or one.verdict.scores[0] <= 0 or not won:
                continue
            (refined,) = one.group.candidates
            if _numbers(refined.text) < min(_numbers(before.text), _numbers(won[0].text)) - SHORTER:
                continue
            plain = continued(before.context_ids, refined.completion_ids)
            made.append(example(self.method, one.group, [refined], [plain]))
        return made


def _numbers(text: str) -> int:
    return len(NUMBER.findall(text))
