"""PIT: implicit self-improvement from people's preferences (Wang et al. 2023, arXiv 2310.00898), the variant pit-dpo.

    loss = -log sigmoid(beta [log p(y+ | x, y-, improve)/p_ref - log p(y- | x, y-, improve)/p_ref])

y+, y-: texts that people compared. The improver sees the worse text in its context and never the better one.

Why it works: what better means is learned from comparisons, so that no instruction has to say it; the serving mode
`improve` then asks for a better answer in the same words.
Precondition: comparisons; without one, nothing is learned. Supervision: people. Null control: `flipped`, as in xpo.

Deviations: PIT trains a gap reward model, then by reinforcement learning; here both are one DPO loss, and its second
stage, from own samples, is left out. The improver is the served adapter itself. Unverified: the paper's beta and rates.
"""

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.modes.improve import IMPROVE
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.comparisons import Comparisons
from methods.selectors.pairs import Pairs, is_pair

CARD = Card(
    "PIT: learn to improve an answer, from people's comparisons",
    "arXiv 2310.00898",
    "people",
    "1",
    "plumbing",
    control="method.options.flipped=true",
)


class Settings(Part):
    feedback: str = "This answer can be better."
    """What the user says of the worse text; `policy:improve` puts a person's own words there."""
    flipped: bool = False
    """True: the null control. Half of the pairs, drawn at random, get the wrong text as the better one."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    improving = IMPROVE.replace("{feedback}", settings.feedback)
    return Method(
        name="pit",
        sample=Iid(shared.sampler),
        score=Comparisons(shared.extract, shared.votes, settings.flipped, improving),
        filters=(is_pair,),
        select=Pairs("pit"),
        objective=settings.dpo,
        rows=2,
    )
