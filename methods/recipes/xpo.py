"""XPO: Exploratory Preference Optimization (Xie et al. 2024, arXiv 2405.21046).

    loss = -log sigmoid(beta [log p(c)/p_ref(c) - log p(r)/p_ref(r)]) + alpha log p(y_ref)          sums over tokens

c is the better and r the worse of two texts; one was sampled by the policy, the other (y_ref) by the base model p_ref.

Why it works: online DPO learns only from what the policy already samples. The term with alpha makes what the base model
says less likely, whether it won or lost, so that mass moves to texts that neither of them says often.
Precondition: a preference that is right more often than not. Supervision: none for `oracle=vote`: in one ballot over
both arms, the sample that reached the majority beats the sample of the other arm that did not. `oracle=people`: pairs
of answers that enough people compared (`better_than` in feedback).

Deviation: the paper's oracle is a preference model; both oracles are variants. Ties give no pair (TRL: one of the arms
wins). `min_share` is ours. People compare answers that were served, whichever versions wrote them: the term with alpha
then applies only if exactly one of the two is the base model's. beta 0.1 and alpha 1e-5 are TRL's; the values of the
paper's experiments are unverified. The paper refits on all pairs so far; here versions are streamed.
Null control: `flipped` draws half of the pairs, which get the wrong text as the better one.
"""

from typing import Literal

from pydantic import Field

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.checks import differ
from methods.filters import min_share
from methods.recipes import Card, Shared
from methods.samplers.arms import Arms
from methods.samplers.iid import Iid
from methods.scorers.comparisons import Comparisons
from methods.scorers.rival_arms import RivalArms
from methods.selectors.pairs import Pairs, is_pair

CARD = Card(
    "XPO: Exploratory Preference Optimization",
    "arXiv 2405.21046",
    "none",
    "2; with oracle=people one sample",
    "plumbing",
    control="method.options.flipped=true",
)


class Oracle(Part):
    """The settings that `xpo` and `online_dpo` share."""

    oracle: Literal["vote", "people"] = "vote"
    """Who says which text is better: the majority of the samples, or people's comparisons."""
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the ballot's winner, for oracle=vote."""
    flipped: bool = False
    """True: the null control. Half of the pairs, drawn at random, get the wrong text as the better one."""


class FromBase(Dpo):
    reference: str = "base"


class Exploring(FromBase):
    optimism: float = Field(default=1e-5, ge=0)
    """alpha: weight of the log-likelihood of the base model's text."""


class Settings(Oracle):
    dpo: Exploring = Exploring()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples of an arm are equal."""
    return compose("xpo", settings, settings.dpo, shared)


def compose(name: str, settings: Oracle, objective: Dpo, shared: Shared) -> Method:
    people = settings.oracle == "people"
    if not people:
        differ(name, shared.sampler)
    return Method(
        name=name,
        sample=Iid(shared.sampler, n=1) if people else Arms(shared.sampler),
        score=(Comparisons if people else RivalArms)(shared.extract, shared.votes, settings.flipped),
        filters=(is_pair, min_share(settings.min_share)),
        select=Pairs(name),
        objective=objective,
        rows=2,
    )
