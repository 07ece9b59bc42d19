"""TTRL: Test-Time Reinforcement Learning (Zuo et al. 2025, arXiv 2504.16084).

    y~ = argmax_y sum_i 1[answer(path_i) = y]     s_i = 1[answer(path_i) = y~]     A_i = (s_i - mean(s)) / std(s)

The objective `grpo` makes winning paths more likely and the others less likely, in proportion to A_i.

Why it works: as in lmsi, the majority is right more often than one sample. Even if it is wrong, most samples are wrong
in other ways and correctly get score 0 ("lucky hit").
Precondition: as in lmsi, and a gate. The score is agreement, which can rise to 1 while accuracy falls to 0: with a high
learning rate and without clipping, training collapses within a few versions (`./run bench collapse`).
Supervision: none; people's votes count.

Deviation: `min_share` drops unsure ballots (the paper: 0). The paper votes with 64 samples and trains on 32; here
`sampler.n` samples vote and the first `train_n` are trained on, by default all. std(s) divides by the number of
candidates, the authors' code by one less: a constant factor for groups of one size.
"""

from pydantic import Field

from core.config import Part
from core.errors import ConfigError
from core.objectives import Grpo
from core.protocols import Method
from methods.checks import exact
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.advantages import Advantages

CARD = Card(
    "TTRL: Test-Time Reinforcement Learning",
    "arXiv 2504.16084",
    "none",
    "1",
    "plumbing",
    overrides=(
        "method.sampler.temperature=1",
        "method.options.min_share=0",
        "learning.replay_windows=1",
    ),
)


class Settings(Part):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner; groups with less are dropped. The paper: 0."""
    train_n: int | None = Field(default=None, ge=2)
    """Train only on this many candidates of a prompt, the first ones; the others only vote. None: all."""
    divide_by_std: bool = True
    """Divide advantages by the standard deviation of the group's scores (GRPO). False: only subtract the mean, so
    that a nearly unanimous group has no more weight than a split one."""
    grpo: Grpo = Grpo()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler that does not draw from the policy's distribution, or with too few samples."""
    n, train_n = shared.sampler.n, settings.train_n
    if n < 2 or (train_n or 0) > n:
        raise ConfigError(
            f"recipe ttrl compares the samples of a prompt, but method.sampler.n={n} and "
            f"method.options.train_n={train_n}; use n >= 2 and train_n at most n"
        )
    exact("ttrl", shared.sampler)
    select = Advantages("ttrl", train_n, settings.divide_by_std)
    return Method(
        name="ttrl",
        sample=Iid(shared.sampler, logprobs=True),
        score=Majority(shared.extract, shared.votes),
        filters=(has_winner, min_share(settings.min_share), select.differing),
        select=select,
        objective=settings.grpo,
        columns=("behaviour",),
    )
