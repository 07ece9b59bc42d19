"""A candidate's score is its log-probability under the base model: the reward of self-improvement by sharpening.

    none     sum_t log p_base(y_t | x, y_<t)          length     the same, divided by the number of tokens

The stop token is included. A candidate that the base model sampled brings its log-probabilities along, exact at
temperature 1; those of another version's text are computed, once. Source: arXiv:2412.01951.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.codec import stable_id, unpack_floats
from core.messages import BASE, Candidate, Group, Prompt, Scored
from core.protocols import Extract, Policy, Votes
from methods.scorers.by_score import by_score
from methods.scorers.majority import answer_of

Norm = Literal["none", "length"]


@dataclass(frozen=True)
class SelfLogprob:
    """Nobody votes, so judgments never change."""

    extract: Extract
    norm: Norm = "none"
    shuffled: bool = False
    """The null control: the scores are permuted over the candidates of a prompt."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        judged = {one.group.id: one for one in known}
        if all(group.id in judged for group in groups):
            return [judged[group.id] for group in groups]
        asked = [self._score(group.prompt, c, policy) for group in groups for c in group.candidates]
        scores = await asyncio.gather(*asked)
        if self.shuffled:
            random.Random(stable_id("shuffled", *(group.id for group in groups))).shuffle(scores)
        rest = iter(scores)
        return [
            by_score(
                group, [answer_of(c, self.extract) for c in group.candidates], [next(rest) for _ in group.candidates]
            )
            for group in groups
        ]

    async def _score(self, prompt: Prompt, candidate: Candidate, policy: Policy) -> float:
        own = candidate.start == candidate.end == BASE and candidate.logprobs
        nats = unpack_floats(candidate.logprobs) if own else await policy.logprobs(prompt, candidate.text, BASE)
        return math.fsum(nats) / (len(nats) if self.norm == "length" else 1)
