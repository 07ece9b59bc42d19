"""CCT: confidence and critique, decomposed and trained (Yang et al. 2024, arXiv 2412.19513).

    ask, and ask again behind the own answer; imitate second answers that are right:
    behind a right first answer (confidence, CLT) and a wrong one (critique, CST), weighed as share to 1 - share

Why it works: acc2 = acc1 CL + (1 - acc1) CS, and the two parts can be trained apart. Wrong first answers are the
model's own, since those of others do not transfer.
Precondition: second answers that are sometimes right behind a wrong one. Supervision: none in this variant; the paper
needs answer keys. Null control: unvoted.

Variant cct-vote: right means with the majority of the first answers. Unverified: which earlier turns the paper masks;
here nothing but the last answer is learned.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.attempts import Attempts
from methods.scorers.first_votes import FirstVotes
from methods.scorers.majority import Majority
from methods.selectors.two_turns import Corrections

CARD = Card("Confidence and critique tuning (variant: by votes)", "arXiv 2412.19513", "none", "2", "plumbing")


class Settings(Part):
    share: float = Field(default=0.4, ge=0, le=1)
    """The weight of second answers that kept a right one."""
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the first answers' winner; prompts with less are dropped."""
    review: str = Field(default="Answer the question again.", min_length=1)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("cct", shared.sampler)
    return Method(
        name="cct",
        sample=Attempts(shared.sampler, settings.review),
        score=FirstVotes(Majority(shared.extract, shared.votes)),
        filters=(has_winner, min_share(settings.min_share)),
        select=Corrections("cct", settings.share),
        objective=Sft(),
    )
