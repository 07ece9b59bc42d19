"""Makes examples of a tree of steps: its best path, and pairs of steps that begin at the same place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import ObjectiveError
from core.messages import Candidate, Example, Group, Scored
from core.protocols import History
from methods.rows import continued, example, row

Branch = tuple[Group, Candidate, float]
"""A candidate, its group and its value."""


@dataclass(frozen=True)
class BestPath:
    """The whole answer that is reached by always taking the most valuable step, learned behind the question. A path
    that does not reach the majority's answer gives nothing. What people wrote is learned as well."""

    method: str

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        written = [one for one in scored if one.group.by == "person"]
        made = [example(self.method, one.group, [c], [row(c)]) for one in written for c in one.group.candidates]
        path = best_path([one for one in scored if one.group.by == "sample"])
        if not path or path[-1][2] < 1:
            return made
        start, (group, last, _) = path[0][1].context_ids, path[-1]
        ids = last.context_ids + last.completion_ids
        if not ids.startswith(start):
            raise ObjectiveError(f"candidate {last.id} does not go on from the question that it answers")
        return [example(self.method, group, [last], [continued(start, ids[len(start) :])]), *made]


@dataclass(frozen=True)
class SiblingPairs:
    """Steps of one partial answer whose values differ by more than `gap`: the better above the worse, behind what came
    before them. At most `most` pairs of a prompt, the widest gaps first."""

    method: str
    gap: float
    most: int

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        pairs = [
            (better[2] - worse[2], better, worse)
            for one in scored
            if one.group.by == "sample"
            for better in branches(one)
            for worse in branches(one)
            if better[2] - worse[2] > self.gap and better[1].completion_ids != worse[1].completion_ids
        ]
        widest = sorted(pairs, key=lambda pair: -pair[0])[: self.most]  # stable: of equals the first
        return [
            example(self.method, better[0], [better[1], worse[1]], [row(better[1]), row(worse[1])])
            for _, better, worse in widest
        ]


def branches(scored: Scored) -> list[Branch]:
    return [(scored.group, c, v) for c, v in zip(scored.group.candidates, scored.verdict.scores, strict=True)]


def best_path(scored: Sequence[Scored]) -> list[Branch]:
    """From the first step to a whole answer; of equal values the first. Empty for a tree without one."""
    after: Mapping[str | None, list[Branch]] = {}
    for one in scored:
        after.setdefault(one.group.parent, []).extend(branches(one))
    path: list[Branch] = []
    while further := after.get(path[-1][1].id if path else None):
        path.append(max(further, key=lambda branch: branch[2]))
    return path if path and path[-1][1].finish != "stop_string" else []
