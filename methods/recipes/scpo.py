"""Self-Consistency Preference Optimization (Prasad et al. 2024, arXiv 2411.04109).

    y+, y- : one path each of the most and the least common answer     w = (V(y+) - V(y-)) / k
    loss = w ( -log sigmoid(beta [log p(y+)/p_t(y+) - log p(y-)/p_t(y-)]) - alpha log p(y+) / |y+| )

V counts the samples with the same answer, k is their number, and p_t the policy before the window's first step.

Why it works: as in lmsi, and the rare answers, which are wrong more often, are made less likely.
Precondition: as in lmsi. Supervision: none; people's votes join the ballot, and w is then their share of it.

Deviation: versions are streamed; the paper trains two rounds. It raises `min_share` from .5 to .7 in the second, here
it rises with the windows to `last_share`. Its extra eight samples at temperature 1.2 for prompts without a reject are
left out: such prompts are dropped. Samples without an answer are no cluster (the paper does not say).
"""

from pydantic import Field

from core.config import Part
from core.objectives import Dpo
from core.protocols import Facts, Method, Tuned
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.best_worst import BestWorst, contested

CARD = Card(
    "ScPO: Self-Consistency Preference Optimization",
    "arXiv 2411.04109",
    "none",
    "1",
    "plumbing",
    overrides=("learning.replay_windows=1",),
)


class Settings(Part):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner in the first window."""
    last_share: float = Field(default=0.7, ge=0, le=1)
    """The same, reached after `ramp` windows."""
    ramp: int = Field(default=4, ge=1)
    weighted: bool = True
    """False: all pairs weigh 1, the paper's ablation."""
    dpo: Dpo = Dpo(beta=0.5, nll=1.0)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("scpo", shared.sampler)
    first, last = settings.min_share, settings.last_share

    def ramp(facts: Facts) -> Tuned:
        return {"min_share": first + (last - first) * min(1.0, facts.window / settings.ramp)}

    return Method(
        name="scpo",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=(has_winner, min_share(first), contested),
        select=BestWorst("scpo", settings.weighted),
        objective=settings.dpo,
        rows=2,
        tuned={"min_share": first},
        tune=ramp,
        bounds={"min_share": (0.0, 1.0)},
    )
