"""Judge-free pairs by a corrupted context (after arXiv 2411.17760), the variant corrupted-context.

    y ~ p_t(. | evidence, question)          y' ~ p_t(. | question)          s: part of the evidence's words in a text
    (y, y') if s(y) > s(y') + margin;  (y', y) if s(y') > s(y) + margin;  else no pair
    loss = -log sigmoid(beta [log p(y+)/p_t(y+) - log p(y-)/p_t(y-)])

Both texts are learned behind the whole prompt. p_t: the policy before the window's first step. Evidence: the sentences
of the last user message before its last question.

Why it works: a text that was written without the evidence is a guess that sounds right. To prefer the other one is to
prefer what the prompt says over what the policy believes.
Precondition: the evidence is in the prompt; senseless for closed-book questions, which are dropped as no_evidence. The
overlap rewards copying: watch accuracy and length. Supervision: none.

Deviation: only the abstract and summaries of the paper were read, so margin and beta are ours, unverified. The paper
mixes the logits of an image-conditioned and an unconditioned forward; here the evidence is missing from the prompt of
one sample. It checks pairs by CLIP; here by words. Words that the question has too do not count. Texts that were cut
off or have no answer make no pair. The blind texts are tokenized again behind the whole prompt.
Null control: `shuffled=true` draws by lot which side is chosen. (Removing another prompt's evidence would be no null:
the check would still sort the pairs.)
"""

from pydantic import Field

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.blinded import Blinded
from methods.scorers.overlap import Overlap, has_evidence
from methods.selectors.evidence_pairs import EvidencePairs

CARD = Card(
    "Judge-free pairs by a corrupted context",
    "after arXiv 2411.17760",
    "none",
    "2",
    "effect",
    control="method.options.shuffled=true",
    overrides=("learning.replay_windows=1",),
)


class Settings(Part):
    margin: float = Field(default=0.1, ge=0, lt=1)
    """Smallest difference in overlap, a part of the evidence's words, that makes a pair."""
    shuffled: bool = False
    """True: the null control. Which side of a pair is chosen is drawn by lot."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("corrupted_context", shared.sampler)
    return Method(
        name="corrupted_context",
        sample=Blinded(shared.sampler),
        score=Overlap(shared.extract),
        filters=(has_evidence,),
        select=EvidencePairs("corrupted_context", settings.margin, settings.shuffled),
        objective=settings.dpo,
        rows=2,
    )
