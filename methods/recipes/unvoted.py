"""The null control of lmsi: the same samples and the same training, without the vote.

    i ~ uniform over the paths that have an answer          D = {(x, path_i)}          max log p(D)

Why it exists: this recipe can gain only from answer format and from training on the model's own text. The vote accounts
for what lmsi gains beyond it. On the embedded model it loses 4 points where lmsi gains 44 (docs/results.md).
Precondition: none. Supervision: none. One sample per question is kept.
"""

from pydantic import ConfigDict

from core.config import Part
from core.objectives import Sft
from core.protocols import Method
from methods.filters import has_winner, has_winning_candidate
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.unvoted import Unvoted
from methods.selectors.winners import Winners

CARD = Card("The null control of voting: one random sample of its own", "ours", "none", "1", "effect", control="")


class Settings(Part):
    """None. Those of the recipe that it is the control of are accepted."""

    model_config = ConfigDict(extra="ignore")


def build(settings: Settings, shared: Shared) -> Method:
    return Method(
        name="unvoted",
        sample=Iid(shared.sampler),
        score=Unvoted(shared.extract),
        filters=(has_winner, has_winning_candidate),
        select=Winners("unvoted", 1),
        objective=Sft(),
    )
