"""The null control of lmsi: the same samples and the same training, without the vote.

    i ~ uniform over the paths that have an answer          D = {(x, path_i)}          max log p(D)

Why it exists: this recipe can gain only from answer format and from training on the model's own text. The vote accounts
for what lmsi gains beyond it. On the embedded model it loses 4 points where lmsi gains 44 (docs/results.md).
Precondition: none. Supervision: none. It ignores `min_share` and `max_winners`: one sample per question is kept.
"""

from core.answers import extractor
from core.config import MethodConfig
from core.messages import Imitate
from core.protocols import Method
from methods.filters import has_winner, has_winning_candidate
from methods.samplers.iid import Iid
from methods.scorers.unvoted import Unvoted
from methods.selectors.winners import Winners


def build(config: MethodConfig) -> Method:
    return Method(
        name="unvoted",
        sample=Iid(config.sampler),
        score=Unvoted(extractor(config.answer)),
        filters=(has_winner, has_winning_candidate),
        select=Winners("unvoted", 1),
        objective="sft",
        makes=Imitate,
        supervision="none",
    )
