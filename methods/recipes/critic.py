"""Critique in the loop, AutoMathCritique (Xi et al. 2024, arXiv 2411.16579), the variant critic-vote.

    y ~ p(x)        of those against the majority:  c ~ p(x, y, criticise),  y' ~ p(x, y, c, refine)
    max log p(y | x) over the majority's y and y'

Why it works: on hard prompts few samples win; a refinement behind a critique can win where a fresh sample does not, and
adds to what is learned there.
Precondition: critiques that help, more often than a fresh sample would. Supervision: none in this variant. Null
control: unvoted.

Deviations: the paper trains a critic on critiques of a larger model and lets keys say what is wrong; here the policy
criticises itself and the vote says so. The paper trains from the base each round; here versions are streamed.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.modes.critic import CRITICISE, REFINE
from methods.recipes import Card, Shared
from methods.samplers.refined import Refined
from methods.scorers.first_votes import FirstVotes
from methods.scorers.majority import Majority
from methods.selectors.refinements import Refinements
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "Critique in the loop (variant: by votes)", "arXiv 2411.16579", "none", "1, and 2 for each critique", "plumbing"
)


class Settings(Voting):
    critiques: int = Field(default=2, ge=1, le=16)
    """Samples of a prompt that are criticised, the first ones that lost."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("critic", shared.sampler)
    winner, _, share = won(settings)
    return Method(
        name="critic",
        sample=Refined(shared.sampler, shared.extract, settings.critiques, CRITICISE, REFINE),
        score=FirstVotes(Majority(shared.extract, shared.votes)),
        filters=(winner, share),
        select=Refinements("critic", Winners("critic", settings.max_winners)),
        objective=Sft(),
    )
