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

from core.answers import extractor
from core.config import MethodConfig
from core.errors import ConfigError
from core.messages import Imitate
from core.protocols import Method
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners


def build(config: MethodConfig) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    if config.sampler.n < 2 or config.sampler.temperature == 0:
        raise ConfigError(
            f"recipe lmsi needs different samples to vote, but method.sampler.n={config.sampler.n} at "
            f"method.sampler.temperature={config.sampler.temperature} gives one; use n >= 2 and a temperature above 0"
        )
    return Method(
        name="lmsi",
        sample=Iid(config.sampler),
        score=Majority(extractor(config.answer), config.votes),
        filters=(has_winner, has_winning_candidate, min_share(config.min_share)),
        select=Winners("lmsi", config.max_winners, config.distinct),
        objective="sft",
        makes=Imitate,
        supervision="none",
    )
