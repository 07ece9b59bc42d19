"""SPIN: Self-Play Fine-Tuning (Chen et al. 2024, arXiv 2401.01335), the variant spin-people.

    y+ : a text that people wrote          y- ~ p_t
    loss = -log sigmoid(beta [log p(y+)/p_t(y+) - log p(y-)/p_t(y-)])

p_t: the policy before the window's first step, which is also the opponent that sampled.

Why it works: the policy learns to tell people's texts from its own. Once its samples cannot be told from them, the loss
has no gradient left on average, so training ends by itself.
Precondition: people's corrections; without one, nothing is learned. Supervision: people. A correction needs
`method.votes.quorum` people who write the same text.

Deviation: corrections of people in place of a set of 50,000 demonstrations. A prompt's pairs are with samples of the
version that explored it; the released code samples once per iteration, continues from its weights, trains on the
previous iteration's pairs too, and raises beta to 5 in the last one. The hinge loss is left out. Pairs of equal texts
and samples that were cut off are dropped. The sampler's temperature is the run's (released: greedy, or 1).
Null control: `shuffled=true` draws by lot which side is chosen. (Texts shuffled over prompts would need other prompts.)
"""

from pydantic import Field

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.written_above import WrittenAbove, corrected

CARD = Card(
    "SPIN: Self-Play Fine-Tuning, on people's corrections",
    "arXiv 2401.01335",
    "people",
    "1",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=("method.votes.correction_share=1",),
)


class Settings(Part):
    each: int = Field(default=1, ge=1)
    """Samples that a text of people is paired with."""
    shuffled: bool = False
    """True: the null control. Which side of a pair is chosen is drawn by lot."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    return Method(
        name="spin",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=(corrected,),
        select=WrittenAbove("spin", settings.each, settings.shuffled),
        objective=settings.dpo,
        rows=2,
    )
