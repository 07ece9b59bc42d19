"""RLHF-Sharpening (Huang et al. 2024, Self-Improvement in Language Models: The Sharpening Mechanism, arXiv 2412.01951).

    loss = ( beta [l(y) - l(y')] - [r(y) - r(y')] )^2 / scale          y, y' ~ p_base
    l(y) = log p(y) / p_base(y)          r(y) = log p_base(y)          both sums over tokens

The optimum is p proportional to p_base^(1 + 1/beta).

Why it works: as in sft_sharpening, likely texts become likelier, but by a known power, and every pair teaches, not only
the likeliest sample. With `sharpen.optimism` above 0 it is the paper's XPO form: y is sampled from the policy and y'
from the base model, and the loss also makes y' less likely, so that the policy tries what the base model seldom does.
Precondition: as in sft_sharpening. Gaps between texts are tens of nats, so a small beta is far too sharp. The optimism
alone has no lower bound: keep it small. Supervision: none.

Deviation: a prompt's samples make disjoint pairs (the paper: two samples, one pair), both finished and with an answer,
so the power holds among such texts. The paper has no experiments and no default beta. In the XPO form the paper refits
on all pairs so far and returns its best iterate; here windows and gate do that. `optimism` and `scale` are set by hand
(the paper derives them from constants nobody knows), and the text of the policy is tokenized again to score it.
`norm=length` is ours: the rewards are means per token, and the optimum is another.
Null control: `shuffled=true` permutes the rewards over the samples of a prompt; the optimum is then the base model.
"""

from core.config import Part
from core.errors import ConfigError
from core.messages import BASE
from core.objectives import Sharpen
from core.protocols import Method
from methods.checks import differ, exact
from methods.filters import has_winner
from methods.recipes import Card, Shared
from methods.samplers.arms import Arms
from methods.samplers.iid import Iid
from methods.scorers.self_logprob import Norm, SelfLogprob
from methods.selectors.rewarded_pairs import RewardedPairs

CARD = Card(
    "RLHF-Sharpening",
    "arXiv 2412.01951",
    "none",
    "1; 2 with optimism",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=("method.sampler.temperature=1",),
)


class Settings(Part):
    norm: Norm = "none"
    """none: the reward is the log-probability of the whole text. length: its mean per token."""
    shuffled: bool = False
    """True: the null control. The rewards are permuted over the samples of a prompt."""
    sharpen: Sharpen = Sharpen()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler with equal samples, or that does not draw from the model's distribution; for a
    reference that is not the base model."""
    differ("sharpening", shared.sampler)
    exact("sharpening", shared.sampler)
    if settings.sharpen.reference != "base":
        raise ConfigError(
            f"recipe sharpening rewards what the base model finds likely, but method.options.sharpen.reference is "
            f"{settings.sharpen.reference!r}, so that each window would sharpen again; set it to base"
        )
    sampler = shared.sampler
    return Method(
        name="sharpening",
        sample=Arms(sampler, True) if settings.sharpen.optimism > 0 else Iid(sampler, logprobs=True, ref=BASE),
        score=SelfLogprob(shared.extract, settings.norm, settings.shuffled),
        filters=(has_winner,),
        select=RewardedPairs("sharpening"),
        objective=settings.sharpen,
        rows=2,
    )
