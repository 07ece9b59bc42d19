"""KTO: Model Alignment as Prospect Theoretic Optimization (Ethayarajh et al. 2024, arXiv 2402.01306).

    loss = 1 - sigmoid(beta l) for a liked text, unwanted sigmoid(beta l) for a disliked one
    l = log p(y)/p_ref(y), the sum over tokens

Why it works: a single thumb says which way a text should move; no second text of the prompt is needed.
Precondition: people's thumbs are right more often than not. Supervision: people. Every sample that enough people like
or dislike (`votes.quorum`) is an example; a vote on an answer counts for all samples with it. Without votes nothing is
learned.

Deviation: the paper's reference point, an estimate of the divergence over a batch, is 0 (training/objectives/kto.py).
It balances the two kinds by weights between 1 and 4/3; here `kto.unwanted` is 1 [unverified]. The reference is the
base model. Null control: `flipped` turns the sign of half of the judged samples, drawn at random.
"""

from core.config import Part
from core.objectives import Kto
from core.protocols import Method
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.thumbs import Thumbs
from methods.selectors.judged import Judged, is_judged

CARD = Card(
    "KTO: Model Alignment as Prospect Theoretic Optimization",
    "arXiv 2402.01306",
    "people",
    "1",
    "plumbing",
    control="method.options.flipped=true",
)


class FromBase(Kto):
    reference: str = "base"


class Settings(Part):
    flipped: bool = False
    """True: the null control. The signs of half of the samples, drawn at random, are turned."""
    kto: FromBase = FromBase()


def build(settings: Settings, shared: Shared) -> Method:
    return Method(
        name="kto",
        sample=Iid(shared.sampler),
        score=Thumbs(shared.extract, shared.votes, settings.flipped),
        filters=(is_judged,),
        select=Judged("kto"),
        objective=settings.kto,
    )
