"""Samples that go on: the candidates of one sample in order, each with its group and score."""

from collections.abc import Iterator, Sequence

from core.messages import Candidate, Group, Scored

Link = tuple[Group, Candidate, float]
"""A candidate, its group and its score."""


def chains(scored: Sequence[Scored]) -> Iterator[list[Link]]:
    """In the order of the first candidates; what was dropped has none."""
    after = {one.group.parent: one for one in scored if one.group.parent is not None}
    for one in scored:
        if one.group.parent is not None or one.group.by != "sample":
            continue
        for candidate, reward in zip(one.group.candidates, one.verdict.scores, strict=True):
            chain: list[Link] = [(one.group, candidate, reward)]
            while (further := after.get(chain[-1][1].id)) is not None:
                chain.append((further.group, further.group.candidates[0], further.verdict.scores[0]))
            yield chain
