"""Critique in the loop at test time, AutoMathCritique, arXiv 2411.16579: every sample is criticised and refined once;
the refined answers vote. No key says which samples are criticised, as in the paper's test-time setting. Variant: the
paper trains a critic; here the served version criticises itself.
"""

import asyncio

from pydantic import Field

from core.messages import Candidate, Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.election import voted
from methods.recipes import Shared
from methods.samplers.iid import greedily, sampling_of
from methods.turns import then

CARD = ModeCard("Samples that the model criticises and refines, then a vote", "arXiv 2411.16579", samples=True)
CRITICISE = "Go through this answer step by step, and say of each step whether it is right, and why."
REFINE = "Answer the question again, and mind this critique."


class Settings(ModeSettings):
    n: int = Field(default=3, ge=1, le=16)
    """Samples; three times as many continuations."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    drawn = await policy.generate(prompt, sampling_of(shared.sampler, n=given.n))
    first = await voted(shared, prompt, drawn, policy)
    progress.so_far(first)

    async def refined(candidate: Candidate) -> Candidate:
        reviewing = then(prompt, candidate, CRITICISE)
        (critique,) = await policy.generate(reviewing, greedily(shared.sampler))
        progress.aside(critique.text)
        (again,) = await policy.generate(then(reviewing, critique, REFINE), greedily(shared.sampler))
        return again

    last = await voted(shared, prompt, await asyncio.gather(*map(refined, drawn)), policy)
    return last if last.share else first  # refinements without any answer replace nothing
