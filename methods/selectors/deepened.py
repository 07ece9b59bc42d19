"""Makes an example of each answer that checked itself and won, of what the model wrote and not of the checks' words."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Example, Row, Scored, Span
from core.protocols import History
from methods.chains import Link, chains
from methods.rows import example, row


@dataclass(frozen=True)
class Deepest:
    """The first `most` answers whose end has a score, whole, behind the question. What people wrote as it is."""

    method: str
    most: int

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        won = [chain for chain in chains(scored) if chain[-1][2] > 0][: self.most]
        made = [example(self.method, chain[-1][0], [chain[-1][1]], [_whole(chain)]) for chain in won]
        written = [one for one in scored if one.group.by == "person"]
        return made + [example(self.method, one.group, [c], [row(c)]) for one in written for c in one.group.candidates]


def _whole(chain: Sequence[Link]) -> Row:
    """Every part is learned; what stands between two parts, and before the first, is context."""
    ids, spans = b"", list[Span]()
    for _, part, _ in chain:
        before = part.context_ids[len(ids) :]
        spans += [Span(tokens=len(before) // 4)] if before else []
        spans += [Span(tokens=len(part.completion_ids) // 4, weight=1.0)] if part.completion_ids else []
        ids = part.context_ids + part.completion_ids
    return Row(token_ids=ids, spans=tuple(spans))
