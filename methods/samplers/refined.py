"""Samples, and refinements of those that lost the vote, each behind a critique."""

import asyncio
from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Candidate, Group, Prompt
from core.protocols import UNTUNED, Extract, Policy, Tuned
from methods.samplers.iid import greedily, grouped, sampling_of
from methods.scorers.majority import answer_of, count
from methods.turns import then


@dataclass(frozen=True)
class Refined:
    """A group of `n` samples, then a group of one refinement for each of the first `critiques` samples that are against
    the majority; its `parent` is that sample. Without a majority there is nothing to be against."""

    config: SamplerConfig
    extract: Extract
    critiques: int
    criticise: str
    refine: str

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        drawn = await policy.generate(prompt, sampling_of(self.config, n=self.config.n))
        answers = [answer_of(candidate, self.extract) for candidate in drawn]
        winner = count((answer, 1.0) for answer in answers).winner
        lost = [c for c, answer in zip(drawn, answers, strict=True) if winner is not None and answer != winner]
        refined = (self._refined(prompt, candidate, policy) for candidate in lost[: self.critiques])
        return [grouped(prompt, drawn), *await asyncio.gather(*refined)]

    async def _refined(self, prompt: Prompt, candidate: Candidate, policy: Policy) -> Group:
        reviewing = then(prompt, candidate, self.criticise)
        (critique,) = await policy.generate(reviewing, greedily(self.config))
        chat = then(reviewing, critique, self.refine)
        (again,) = await policy.generate(chat, sampling_of(self.config, n=1))
        name = stable_id("refined", candidate.id, again.id)
        return Group(id=name, prompt=chat, candidates=(again,), parent=candidate.id)
