"""Monte Carlo tree search over steps, as AlphaLLM answers, arXiv 2404.12253: UCT, then a vote over every whole answer.

Variant `mcts-vote`: AlphaLLM's value, process and outcome models were trained with labels; here rollouts value a step
(methods/steps.py). That value knows nothing beyond the vote. Its adaptive widths are inert in its shipped settings, so
widths are fixed here.
"""

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, Policy, Progress
from methods.recipes import Shared
from methods.search import uct
from methods.steps import Partial, Steps, StepSettings

CARD = ModeCard(
    "The vote of a tree search over steps",
    "arXiv 2404.12253",
    samples=True,
    measured="embedded model: -0.7 [-8.6, +7.3]",
)


class Settings(StepSettings):
    simulations: int = Field(default=6, ge=1, le=64)
    root_width: int = Field(default=4, ge=1, le=16)
    width: int = Field(default=2, ge=1, le=16)
    c: float = Field(default=1.0, ge=0, le=10)
    """Weight of exploring."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    steps = Steps(shared, policy, progress, given.stop, given.rollouts)

    def widths(depth: int) -> int:
        return given.width if depth else given.root_width

    await uct(Partial(prompt), steps.grow, given.simulations, widths, given.depth, given.c)
    return steps.elected()
