"""AlphaLLM-CPL: pairs of sibling steps from a tree search (Wang et al. 2024, arXiv 2410.06508).

    (s, a+, a-) : V(s a+) - V(s a-) > tau
    loss = -log sigmoid(beta [log p(a+|s)/p_0(a+|s) - log p(a-|s)/p_0(a-|s)])

Why it works: a pair that shares its beginning says which step was wrong, where a pair of whole answers does not.
Precondition: as in alphallm. Supervision: none in this variant. Null control: one random answer in place of the vote's.

Variant: values by votes, as in alphallm. Left out: pairs of whole paths, and the curriculum, which orders each epoch of
an offline set by gaps of value and of log-probability; versions are streamed, and a window is trained once. Unverified:
tau, beta and its reference (here the base).
"""

from pydantic import Field

from core.objectives import Dpo
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared, alphallm
from methods.samplers.tree import Tree
from methods.scorers.tree_values import TreeValues
from methods.selectors.paths import SiblingPairs

CARD = Card(
    "AlphaLLM-CPL: better and worse steps of a tree search (variant: by votes)",
    "arXiv 2410.06508",
    "none",
    "2",
    "plumbing",
    control="method.options.unvoted=true",
)


class Settings(alphallm.Settings):
    gap: float = Field(default=0.35, ge=0, lt=1)
    """How much more the better step is worth."""
    max_pairs: int = Field(default=4, ge=1)
    """Of one prompt, so that no tree fills a window."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("cpl", shared.sampler)
    return Method(
        name="cpl",
        sample=Tree(shared, settings),
        score=TreeValues(alphallm.ballot(settings, shared), shared.extract),
        filters=(has_winner, min_share(settings.min_share)),
        select=SiblingPairs("cpl", settings.gap, settings.max_pairs),
        objective=settings.dpo,
        rows=2,
    )
