"""A candidate's score is how much of the prompt's evidence it uses: see methods.evidence."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.messages import Group, Scored
from core.protocols import DropReason, Extract, History, Policy, Votes
from methods.evidence import divided, overlap
from methods.scorers.by_score import by_score
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class Overlap:
    """Nobody votes. Without evidence all scores are 0."""

    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        return [self._scored(group) for group in groups]

    def _scored(self, group: Group) -> Scored:
        parts = divided(group.prompt)
        scores = [overlap(c.text, parts.evidence) if parts is not None else 0.0 for c in group.candidates]
        return by_score(group, [answer_of(c, self.extract) for c in group.candidates], scores)


def has_evidence(scored: Scored, history: History) -> DropReason | None:
    """The filter for this scorer: drops groups whose prompt is only a question."""
    return "no_evidence" if divided(scored.group.prompt) is None else None
