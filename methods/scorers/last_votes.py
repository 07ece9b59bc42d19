"""A vote of the last answers of a debate, by which all answers of it are judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Group, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.samplers.iid import grouped
from methods.scorers.majority import answer_of


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
        made: list[Scored] = []
        for group in groups:
            answers = tuple(answer_of(candidate, self.extract) for candidate in group.candidates)
            scores = tuple(float(answer is not None and answer == judged.verdict.winner) for answer in answers)
            update = {"scores": scores, "answers": answers, "shares": ()}
            made.append(Scored(group=group, verdict=judged.verdict.model_copy(update=update)))
        return [*made, *written]
