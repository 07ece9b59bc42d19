"""TTRL: Test-Time Reinforcement Learning (Zuo et al. 2025, arXiv 2504.16084).

    y~ = argmax_y sum_i 1[answer(path_i) = y]     s_i = 1[answer(path_i) = y~]     A_i = (s_i - mean(s)) / std(s)

and the objective `grpo` follows A_i on every path, the winners' up and the others' down.

Why it works: as lmsi, the majority is right more often than the sample. Where it is wrong, most samples are wrong in
other ways and are rightly scored 0 all the same ("lucky hit").
Precondition: as lmsi, and a gate. Its score is agreement, which rises to 1 while accuracy falls to 0: at a high rate
without clipping it collapses within a few versions (`./run bench collapse`). Supervision: none; people's votes count.

Deviation: `min_share` drops unsure ballots (0 is the paper's). The paper votes with 64 and trains on 32 of them; here
`sampler.n` vote and the first `train_n` are trained on, by default all. std(s) divides by the number of candidates,
the authors' code by one less: a constant factor at groups of one size.
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
    """Raises: ConfigError for a sampler whose log-probabilities are not the policy's, or settings without a vote."""
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
            f"recipe ttrl learns from the probabilities that its samples had, but at "
            f"method.sampler.temperature={sampler.temperature} and method.sampler.top_p={sampler.top_p} they are drawn "
            "from another distribution than the policy's; set method.sampler.temperature=1 method.sampler.top_p=1"
        )
