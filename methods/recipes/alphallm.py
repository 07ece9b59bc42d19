"""AlphaLLM: self-improvement by imagination, search and criticism (Tian et al. 2024, arXiv 2404.12253).

    a tree of steps grown by UCT        step <- argmax value, down to an answer        max log p(path | x)

Why it works: search spends its samples where answers look right, so its best path may be right where a sample is not.
Precondition: values that know more than the policy; else search is a vote by other means. Supervision: none in this
variant; the paper's value, process and outcome models are trained with labels. Null
control: one random answer in place of the vote's.

Variant mcts-vote: a step's value is the part of the whole answers behind it that reach the majority's answer. Adaptive
widths are left out, which are inert in the shipped settings. The paper rolls out with a small policy, here with itself.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method, Scorer
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.tree import Shape, Tree
from methods.scorers.majority import Majority
from methods.scorers.tree_values import TreeValues
from methods.scorers.unvoted import Unvoted
from methods.selectors.paths import BestPath

CARD = Card(
    "AlphaLLM: the best path of a tree search (variant: by votes)",
    "arXiv 2404.12253",
    "none",
    "2",
    "plumbing",
    control="method.options.unvoted=true",
)


class Settings(Shape):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner among all whole answers; trees with less are dropped."""
    unvoted: bool = False
    """True: the null control, in which one random answer wins."""


def ballot(settings: Settings, shared: Shared) -> Scorer:
    return Unvoted(shared.extract) if settings.unvoted else Majority(shared.extract, shared.votes)


def build(settings: Settings, shared: Shared, name: str = "alphallm") -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ(name, shared.sampler)
    return Method(
        name=name,
        sample=Tree(shared, settings),
        score=TreeValues(ballot(settings, shared), shared.extract),
        filters=(has_winner, min_share(settings.min_share)),
        select=BestPath(name),
        objective=Sft(),
    )
