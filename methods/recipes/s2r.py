"""S2R: self-verify and self-correct by reinforcement learning (Ma et al. 2025, arXiv 2502.12853), the variant s2r-vote.

    s1 v1 s2 v2 ... in one text        A = (reward - mean reward behind the same rewards) * emphasis        GRPO

s: a solution; v: a verification, from "Wait,"; another solution from "Let me try again.".

Why it works: each part is rewarded for itself, so a true "this is wrong" is learned although the answer is wrong.
Precondition: a model that writes such texts; the paper first trains it to, on verifications of other models. One that
does not is trained as by REINFORCE on whole answers. Supervision: none in this variant. Null control: verifications are
rewarded by lot.

Variant: the majority of the first solutions stands for the truth, where the paper has answer keys. So verdicts learn
what most samples say. Deviations: GRPO clips tokens, the paper segments; the divergence is in the loss, not in the
advantage; the opening words belong to their segment; means count prompts, not segments; no training before.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Grpo
from core.protocols import Method
from methods.checks import exact
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.samplers.segmented import Segmented
from methods.scorers.majority import Majority
from methods.scorers.self_verified import SelfVerified
from methods.selectors.by_segment import BySegment, beginnings

CARD = Card(
    "S2R: rewards for solving and for verifying (variant: by votes)",
    "arXiv 2502.12853",
    "none",
    "1",
    "plumbing",
    control="method.options.by_lot=true",
    overrides=("method.sampler.temperature=1", "learning.replay_windows=1"),
)


class Settings(Part):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner of the first solutions; prompts with less are dropped."""
    by_lot: bool = False
    """True: the null control, which rewards verifications by lot."""
    grpo: Grpo = Grpo(kl=0.05)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler that does not draw from the policy's distribution."""
    exact("s2r", shared.sampler)
    select = BySegment("s2r")
    return Method(
        name="s2r",
        sample=Segmented(Iid(shared.sampler, logprobs=True)),
        score=SelfVerified(Majority(shared.extract, shared.votes), shared.extract, settings.by_lot),
        filters=(has_winner, min_share(settings.min_share)),
        select=select,
        objective=settings.grpo,
        columns=("behaviour",),
        tuned=select.tuned(),
        tune=select.tune,
        bounds={f"mean {name}": (-1.0, 1.0) for name in beginnings()},
        measure=select.measure,
    )
