"""DIVE: Diversified Iterative Self-Improvement (Qin et al. 2025, arXiv 2501.00747), the variant dive-vote.

    right, wrong : the pool of all rounds, split by today's majority answer          S : a diverse set of each, |S| <= P
    loss = -log sigmoid(beta [log p(y+)/p_t(y+) - log p(y-)/p_t(y-)]) - nll log p(y+) / |y+|          y+, y- in S+, S-

p_t: the policy before the window's first step. The sets are greedy in the mean of distinct-1 and distinct-2.

Why it works: preference learning on own samples makes samples alike. Pairs that differ much from each other, also from
those of earlier rounds, teach the same difference without narrowing how it is written.
Precondition: as in lmsi; and prompts that are explored more than once, else the pool is one round. Supervision: none
(the paper: gold answers); people's votes join the ballot.

Deviation: sides by the vote, and today's vote also judges old texts. The paper drops outliers of the pool by an
isolation forest on embeddings; that is left out, and texts that were cut off or have no answer are dropped. The
released code pairs shuffled lists, without a pool; the greedy selection is the paper's. Its flag adds nll = .5 to an
unscaled DPO loss, as here; the paper halves both. Distinct-n favours short texts. The buffer keeps eight rounds of a
prompt, those of versions that were rejected since included. `top_p` is 1 (released: .95).
Null control: `greedy=false`, a random set of the same pool and size.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.diverse import Diverse, two_sided

CARD = Card(
    "DIVE: Diversified Iterative Self-Improvement",
    "arXiv 2501.00747",
    "none",
    "1",
    "plumbing",
    control="method.options.greedy=false",
    overrides=("learning.replay_windows=1",),
)


class Settings(Part):
    pairs: int = Field(default=5, ge=1)
    """Maximum number of pairs of a prompt: the paper's P."""
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner; groups with less are dropped."""
    greedy: bool = True
    """False: the null control. The sets are random."""
    dpo: Dpo = Dpo(beta=0.4, nll=0.5)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("dive", shared.sampler)
    return Method(
        name="dive",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=(has_winner, min_share(settings.min_share), two_sided),
        select=Diverse("dive", settings.pairs, settings.greedy),
        objective=settings.dpo,
        rows=2,
        remembers=True,
    )
