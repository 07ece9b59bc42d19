"""A tournament: the policy compares candidates in pairs, and the better one of each pair goes on."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.codec import stable_id
from core.messages import Candidate, Group, Prompt, Scored
from core.protocols import Extract, Policy, Votes
from methods.judge_prompts import JudgePrompt
from methods.scorers.judge import Judging, judgements, stored, value_of, valued


@dataclass(frozen=True)
class Tournament:
    """Single elimination over the finished candidates of a prompt. The score is the number of rounds that a candidate
    went on, divided by the number of rounds, so from 0 to 1. Order and places are drawn by lot from the group's id. A
    candidate without an opponent goes on. After a comparison that cannot be read neither does; candidates of which none
    could be read have no score."""

    form: JudgePrompt
    judging: Judging
    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        played = [await self._played(group, policy, {**stored(known)}) for group in groups]
        return [*(one for one, _ in played), *(match for _, matches in played for match in matches)]

    async def _played(self, group: Group, policy: Policy, past: dict[str, Scored]) -> tuple[Scored, list[Scored]]:
        distinct = {c.text: c for c in reversed(group.candidates) if c.finish == "stop"}
        left = sorted(distinct.values(), key=lambda candidate: candidate.id)
        random.Random(stable_id("tournament", group.id)).shuffle(left)
        rounds = max(1, (len(left) - 1).bit_length())
        went_on = dict.fromkeys((candidate.text for candidate in left), 0)
        compared: set[str] = set()
        matches: list[Scored] = []

        async def match(first: Candidate, second: Candidate) -> Scored | None:
            asked = self._asked(group.prompt, first, second)
            return past.get(asked.id) or await judgements(self.form, asked, first.id, self.judging, policy)

        while len(left) > 1:
            pairs = [pair for place, pair in enumerate(pairwise(left)) if place % 2 == 0]
            results = await asyncio.gather(*(match(*pair) for pair in pairs))
            unopposed, left = left[2 * len(pairs) :], list[Candidate]()
            for (first, second), result in zip(pairs, results, strict=True):
                value = None if result is None else value_of(result)
                matches += [] if result is None else [result]
                if value is not None:
                    compared |= {first.text, second.text}
                    left.append(first if value > 0.5 else second)
            left += unopposed
            for candidate in left:
                went_on[candidate.text] += 1
        scores = {text: went_on[text] / rounds for text in compared}
        return valued(group, lambda candidate: scores.get(candidate.text), self.extract), matches

    def _asked(self, prompt: Prompt, first: Candidate, second: Candidate) -> Prompt:
        return self.form.about(prompt, first=first.text, second=second.text)
