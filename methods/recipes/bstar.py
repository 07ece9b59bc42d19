"""B-STaR: balancing exploration and exploitation (Zeng et al. 2024, arXiv 2412.17256), variant bstar-vote.

    bs = min(1, n' / n*) n' / n          n: kept samples of a prompt          n': the distinct right ones among them
    T := the one of T, T - step, T + step with the greatest mean bs over the window's prompts with a kept sample

Why it works: when a model gets surer, its samples become equal and there is less to learn. bs falls then, and the
temperature rises. In the paper's ablation the temperature does most.
Precondition: as in lmsi. Supervision: none. The paper's is an answer key, a key's rationale, and a reward model.

Deviation: right is what reached the majority, so all kept samples count as right and bs = min(1, n' / n*): it rewards
distinct winners and cannot see a wrong majority. Never read it as accuracy. `kept=samples` (ours) counts all distinct
samples as kept. With scores of 0 and 1 a tuned threshold decides nothing, so `min_share` is fixed. The paper scores a
grid of 15 temperatures on 1,000 prompts with 64 samples before each round; here each prompt of a window is sampled at
one of three neighbours, and the next window moves by one step. n* of the authors' code is 8; the paper's is unverified.
The key's rationale is not among the samples, and there is no target size of the data.
Null control: `random` draws the temperature from the grid.
"""

from typing import Literal

from pydantic import Field

from core.errors import ConfigError
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.temperatures import Temperatures
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners
from methods.tuners.balance import Balance
from methods.voting import Voting, won

CARD = Card("B-STaR, by the vote", "arXiv 2412.17256", "none", "1", "plumbing", control="method.options.random=true")


class Settings(Voting):
    enough: int = Field(default=8, ge=1)
    """n*: distinct winners of a prompt from which more do not raise bs."""
    kept: Literal["winners", "samples"] = "winners"
    """What n counts: the distinct winners, or all distinct samples, so that disagreement lowers bs."""
    low: float = Field(default=0.5, gt=0, le=5)
    high: float = Field(default=1.2, gt=0, le=5)
    """Least and greatest temperature."""
    step: float = Field(default=0.1, ge=0.01)
    random: bool = False
    """True: the null control, which draws the temperature of each window."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal, or a temperature outside low to high."""
    differ("bstar", shared.sampler)
    first = round(shared.sampler.temperature, 2)
    if not settings.low <= first <= settings.high:
        raise ConfigError(
            f"recipe bstar moves the temperature from {settings.low} to {settings.high}, but "
            f"method.sampler.temperature={first}; set it within these, or method.options.low and high around it"
        )
    sample = Temperatures(shared.sampler, settings.low, settings.high, settings.step)
    tuner = Balance(sample, settings.min_share, settings.enough, settings.kept, settings.random)
    return Method(
        name="bstar",
        sample=sample,
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Winners("bstar", settings.max_winners),
        objective=Sft(),
        tuned={"temperature": first},
        tune=tuner.tune,
        bounds={"temperature": (settings.low, settings.high)},
        measure=tuner.measure,
    )
