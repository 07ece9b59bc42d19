"""Two arms compared by one majority vote: the sample that reached the majority beats the one that did not."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.config import VotesConfig
from core.messages import Group, Scored
from core.protocols import Extract, Policy, Votes
from methods.scorers.majority import GUARDED, Majority
from methods.scorers.paired import paired


@dataclass(frozen=True)
class RivalArms:
    """One ballot over both arms of `Arms`, people's votes included. Sample i of one arm meets sample i of the other. If
    exactly one has the winning answer, they form a pair; a sample without an answer forms none."""

    extract: Extract
    votes: VotesConfig = GUARDED
    flipped: bool = False
    """The null control: see `paired`."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        judged = await Majority(self.extract, self.votes)(groups, votes, policy, known)
        current, base = judged[:2]
        return [*judged, *self._pairs(current, base)]

    def _pairs(self, current: Scored, base: Scored) -> list[Scored]:
        meetings = zip(
            zip(current.group.candidates, base.group.candidates, strict=True),
            zip(current.verdict.answers, base.verdict.answers, strict=True),
            zip(current.verdict.scores, base.verdict.scores, strict=True),
            strict=True,
        )
        return [
            paired(
                current.group.prompt,
                candidates,
                answers,
                better=0 if ours > theirs else 1,
                share=current.verdict.share,
                fixed=True,
                flipped=self.flipped,
            )
            for candidates, answers, (ours, theirs) in meetings
            if ours != theirs and None not in answers
        ]
