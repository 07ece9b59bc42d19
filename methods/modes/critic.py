"""Critique in the loop at test time, AutoMathCritique, arXiv 2411.16579: every sample is criticised and refined once;
the refined answers vote. No key says which samples are criticised, as in the paper's test-time setting. Variant: the
paper trains a critic; here the served version criticises itself.
"""

import asyncio
from collections.abc import Sequence

from pydantic import Field

from core.messages import Candidate, Prompt
from core.protocols import Card, ModeAnswer, ModeSettings, Policy, Progress
from methods.election import elected
from methods.recipes import Shared
from methods.samplers.iid import greedy, sampling_of
from methods.turns import then

CARD = Card("Samples that the model criticises and refines, then a vote", "arXiv 2411.16579", samples=True)
CRITICISE = "Go through this answer step by step, and say of each step whether it is right, and why."
REFINE = "Answer the question again, and mind this critique."


class Settings(ModeSettings):
    n: int = Field(default=3, ge=1, le=16)
    """Samples; three times as many continuations."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    drawn = await policy.generate(prompt, sampling_of(shared.sampler, n=given.n))
    first = await _voted(shared, prompt, policy, drawn)
    progress.so_far(first)

    async def refined(candidate: Candidate) -> Candidate:
        reviewing = then(prompt, candidate, CRITICISE)
        (critique,) = await policy.generate(reviewing, greedy(shared.sampler))
        progress.aside(critique.text)
        (again,) = await policy.generate(then(reviewing, critique, REFINE), greedy(shared.sampler))
        return again

    last = await _voted(shared, prompt, policy, await asyncio.gather(*map(refined, drawn)))
    return last if last.share else first  # refinements without any answer replace nothing


async def _voted(shared: Shared, prompt: Prompt, policy: Policy, said: Sequence[Candidate]) -> ModeAnswer:
    best, verdict = await elected(shared, prompt, said, policy)
    return ModeAnswer(best.text, best.finish, verdict.share)
