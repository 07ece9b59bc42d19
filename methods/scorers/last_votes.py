"""A vote of the last answers of a debate, by which all answers of it are judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Group, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.samplers.iid import grouped
from methods.scorers.first_votes import judged_by


@dataclass(frozen=True)
class LastVotes:
    """Score 1 for every answer, early or late, that the last ones agree on."""

    vote: Scorer
    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        went_on = {group.parent for group in groups}
        last = [c for group in groups for c in group.candidates if c.id not in went_on]
        judged, *written = await self.vote([grouped(groups[0].prompt, last)], votes, policy)
        return [*(judged_by(judged.verdict, group, self.extract) for group in groups), *written]
