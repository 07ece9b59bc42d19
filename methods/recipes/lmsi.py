"""Large Language Models Can Self-Improve (Huang et al. 2022, arXiv 2210.11610).

    y~ = argmax_y sum_i 1[answer(path_i) = y]          D = {(x, path_i) : answer(path_i) = y~}          max log p(D)

Why it works: wrong answers scatter and right answers agree, so the majority is right more often than one sample.
Training on every path with the majority's answer moves that gain into the weights.
Precondition: the right answer is more likely than any single wrong one. If no sample is right, the vote amplifies an
error. Supervision: none; if people vote, their votes count in the same ballot.

Deviation: the paper keeps every majority and draws 32 paths; here ballots under `min_share` are dropped (measured on
the predecessor of the embedded model: 60 -> 46% without) and `sampler.n` is 8. One prompt format; the paper mixes four.
Versions are streamed; the paper trains one round. The paper's temperature of 0.7 stays.
"""

from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.decided import Decided
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card("Large Language Models Can Self-Improve", "arXiv 2210.11610", "none", "1", "effect")


class Settings(Voting):
    distinct: bool = True
    """False: a winner is weighted by the number of times it was sampled."""
    early_stop: bool = False
    """Draw no samples that cannot change the winner any more. Its share, which `min_share` looks at, is that of the
    samples drawn."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    sampler = shared.sampler
    differ("lmsi", sampler)
    return Method(
        name="lmsi",
        sample=Decided(sampler, shared.extract, sampler.n, rounds=sampler.n) if settings.early_stop else Iid(sampler),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Winners("lmsi", settings.max_winners, settings.distinct),
        objective=Sft(),
    )
