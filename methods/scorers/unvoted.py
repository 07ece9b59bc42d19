"""A scorer without a vote: the null control of every voting recipe."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Group, Scored, Verdict
from core.protocols import Extract, Policy, Votes
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class Unvoted:
    """One random sample with an answer wins, regardless of the others. The choice depends only on the ids of prompt and
    groups, so that settling again makes the same choice."""

    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        answers = {c.id: answer_of(c, self.extract) for group in groups for c in group.candidates}
        eligible = [candidate_id for candidate_id, answer in answers.items() if answer is not None]
        seed = stable_id("unvoted", *(part for group in groups for part in (group.prompt.id, group.id)))
        chosen = random.Random(seed).choice(eligible) if eligible else None
        winner = answers[chosen] if chosen else None
        share = 1.0 if chosen else 0.0
        return [
            Scored(
                group=group,
                verdict=Verdict(
                    scores=tuple(float(c.id == chosen) for c in group.candidates),
                    answers=tuple(answers[c.id] for c in group.candidates),
                    winner=winner,
                    share=share,
                    margin=share,
                ),
            )
            for group in groups
        ]
