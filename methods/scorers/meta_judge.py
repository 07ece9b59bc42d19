"""A judge of judgements: the policy compares each two judgements of the candidate on which the judge was least sure.

Every comparison is asked in both orders, since a judge may prefer a place. The comparisons are stored as judgements of
the judgement that was placed first.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import pvariance

from core.codec import stable_id
from core.messages import Candidate, Group, Prompt, Scored
from core.protocols import Policy, Votes
from methods.elo import Battle
from methods.judge_prompts import JudgePrompt
from methods.scorers.judge import Judge, Judging, is_judgement, judgements, read, stored


@dataclass(frozen=True)
class MetaJudge:
    """The judge's groups, and one group for each comparison."""

    judge: Judge
    form: JudgePrompt
    judging: Judging

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        scored = await self.judge(groups, votes, policy, known)
        past, one = stored(known), least_sure(scored)
        if one is None:
            return scored
        asked = meetings(self.form, one)

        async def compared(prompt: Prompt, parent: str) -> Scored | None:
            return past.get(prompt.id) or await judgements(self.form, prompt, parent, self.judging, policy)

        order = [(prompt, readable(one)[first].id) for (first, _), prompt in asked.items()]
        found = await asyncio.gather(*(compared(*each) for each in order))
        return [*scored, *(each for each in found if each is not None)]


def least_sure(scored: Sequence[Scored]) -> Scored | None:
    """The judgements of one candidate that vary most, drawn by lot from equals; None if no candidate's vary."""
    samples = {c.id for one in scored if not is_judgement(one) for c in one.group.candidates}
    judged = [one for one in scored if is_judgement(one) and one.group.parent in samples]
    spread = [pvariance(values) if len(values := read(one)) > 1 else 0.0 for one in judged]
    most = max(spread, default=0.0)
    equal = [one for one, each in zip(judged, spread, strict=True) if each == most > 0]
    lots = random.Random(stable_id("least sure", *(one.group.id for one in equal)))
    return lots.choice(equal) if equal else None


def readable(judgement: Scored) -> list[Candidate]:
    """The distinct judgements that could be read."""
    pairs = zip(judgement.group.candidates, judgement.verdict.answers, strict=True)
    return list({c.text: c for c, answer in reversed(list(pairs)) if answer is not None}.values())[::-1]


def meetings(form: JudgePrompt, judgement: Scored) -> dict[tuple[int, int], Prompt]:
    """The places of two judgements, in the order in which they are shown -> the prompt that compares them."""
    texts = [candidate.text for candidate in readable(judgement)]
    return {
        (first, second): form.about(judgement.group.prompt, first=texts[first], second=texts[second])
        for first, second in permutations(range(len(texts)), 2)
    }


def battles(form: JudgePrompt, judgement: Scored, past: Mapping[str, Scored]) -> list[Battle]:
    """The results of its comparisons that could be read."""
    found = ((places, past.get(prompt.id)) for places, prompt in meetings(form, judgement).items())
    return [
        Battle(first, second, first_won=value > 0.5)
        for (first, second), compared in found
        if compared is not None
        for value in read(compared)
    ]
