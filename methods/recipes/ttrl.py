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

from core.answers import extractor
from core.config import MethodConfig, SamplerConfig
from core.errors import ConfigError
from core.messages import Reinforce
from core.protocols import Method
from methods.filters import has_winner, min_share
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.advantages import Advantages


def build(config: MethodConfig) -> Method:
    """Raises: ConfigError for a sampler that does not draw from the policy's distribution, or with too few samples."""
    _check(config.sampler, config.train_n)
    select = Advantages("ttrl", config.train_n, config.divide_by_std)
    return Method(
        name="ttrl",
        sample=Iid(config.sampler, logprobs=True),
        score=Majority(extractor(config.answer), config.votes),
        filters=(has_winner, min_share(config.min_share), select.differing),
        select=select,
        objective="grpo",
        makes=Reinforce,
        supervision="none",
    )


def _check(sampler: SamplerConfig, train_n: int | None) -> None:
    if sampler.n < 2 or (train_n or 0) > sampler.n:
        raise ConfigError(
            f"recipe ttrl compares the samples of a prompt, but method.sampler.n={sampler.n} and "
            f"method.train_n={train_n}; use n >= 2 and train_n at most n"
        )
    if sampler.temperature != 1 or sampler.top_p != 1:
        raise ConfigError(
            f"recipe ttrl learns from the probabilities of its samples, but with "
            f"method.sampler.temperature={sampler.temperature} and method.sampler.top_p={sampler.top_p} they do not "
            "come from the policy's distribution; set method.sampler.temperature=1 method.sampler.top_p=1"
        )
