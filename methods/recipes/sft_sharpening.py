"""SFT-Sharpening (Huang et al. 2024, Self-Improvement in Language Models: The Sharpening Mechanism, arXiv 2412.01951).

    y_1 .. y_N ~ p_base          y* = argmax_j log p_base(y_j)          max log p(y*)

The log-probability of a text is the sum over its tokens, the stop token included.

Why it works: the likeliest of N samples is nearer to the likeliest text of all than one sample, and is costly to search
for. Training on it makes the search unnecessary. If one text has more than half of the probability, greedy decoding
finds it after training (proposition 3.1).
Precondition: the base model is better at judging texts, by their probability, than at sampling them; likely texts are
good texts. Where short texts are likely, `norm=none` selects them: length and accuracy can fall. Supervision: none.

Deviation: `sampler.n` is 8; the paper draws 50, and its gains saturate at 10 to 20. `norm=length` is the paper's second
reward. Samples that were cut off or have no answer are not selected. Versions are streamed, all from samples of the
base model; the paper trains one round. Adaptive N (its appendix D) is left out.
Null control: `shuffled=true`, a random one of the same samples.
"""

from core.config import Part
from core.messages import BASE
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ, exact
from methods.filters import has_winner
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.self_logprob import Norm, SelfLogprob
from methods.selectors.best import Best

CARD = Card(
    "SFT-Sharpening",
    "arXiv 2412.01951",
    "none",
    "1",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=("method.sampler.temperature=1",),
)


class Settings(Part):
    norm: Norm = "none"
    """none: the log-probability of the whole text. length: its mean per token."""
    shuffled: bool = False
    """True: the null control. The log-probabilities are permuted over the samples of a prompt."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler with equal samples, or that does not draw from the model's distribution."""
    differ("sft_sharpening", shared.sampler)
    exact("sft_sharpening", shared.sampler)
    return Method(
        name="sft_sharpening",
        sample=Iid(shared.sampler, logprobs=True, ref=BASE),
        score=SelfLogprob(shared.extract, settings.norm, settings.shuffled),
        filters=(has_winner,),
        select=Best("sft_sharpening"),
        objective=Sft(),
    )
