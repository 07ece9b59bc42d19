"""A vote of first attempts only: second ones are judged by its winner and do not vote, so that no chain counts twice.

Variant of everything that the papers judge by answer keys: it rewards a move to the majority, not to what is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Group, Scored, Verdict
from core.protocols import Extract, Policy, Votes
from methods.scorers.majority import Majority, answer_of


@dataclass(frozen=True)
class FirstVotes:
    vote: Majority

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        first = await self.vote([group for group in groups if group.parent is None], votes, policy, known)
        if not first:
            return []
        further = [group for group in groups if group.parent is not None]
        return [*first, *(judged_by(first[0].verdict, group, self.vote.extract) for group in further)]


def judged_by(verdict: Verdict, group: Group, extract: Extract) -> Scored:
    """A group that did not vote: 1 for every answer that won."""
    answers = tuple(answer_of(candidate, extract) for candidate in group.candidates)
    scores = tuple(float(verdict.winner is not None and answer == verdict.winner) for answer in answers)
    return Scored(group=group, verdict=verdict.model_copy(update={"answers": answers, "scores": scores, "shares": ()}))
