"""MindStar, arXiv 2405.16265: search among the next steps of an answer, by Levin's rule or by beam.

Variant: the paper's steps are valued by a reward model that was trained on labelled steps; here by rollouts
(methods/steps.py). That value knows nothing beyond the vote, so do not expect more than a vote of as many tokens.
"""

from typing import Literal

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, Policy, Progress
from methods.recipes import Shared
from methods.search import beam, levin
from methods.steps import Partial, Steps, StepSettings

CARD = ModeCard(
    "An answer found by searching among its steps",
    "arXiv 2405.16265",
    samples=True,
    measured="embedded model: -50.7 [-58.9, -42.5], it loses",
)


class Settings(StepSettings):
    rule: Literal["levin", "beam"] = "levin"
    width: int = Field(default=3, ge=1, le=16)
    """Steps sampled of each partial answer that is taken up."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    steps = Steps(shared, policy, progress, given.stop, given.rollouts)
    search = levin if given.rule == "levin" else beam
    found = await search(Partial(prompt), steps.grow, given.width, given.depth)
    best = found.step.state
    return ModeAnswer.of(best) if found.step.final else steps.elected()
