"""SCoRe: training language models to self-correct via reinforcement learning (Kumar et al. 2024, arXiv 2409.12917).

    attempt 1: y1 ~ pi(x)        attempt 2: y2 ~ pi(x, y1, review)
    stage 1:  max r(y2),  y1 held near the reference          stage 2:  max r1 + [r2 + alpha (r2 - r1)] - beta KL

Why it works: rewarded alone, a second attempt learns to copy the first. Stage 1 moves it away while the first stays,
and alpha pays for a change from wrong to right and fines the opposite. gamma is 0: each turn has its own reward.
Precondition: a model that follows the review turn, and second attempts that are sometimes better. Supervision: none in
this variant; the paper needs answer keys. Null control: alpha=0 and no stage 1, where the second attempt copies.

Variant score-vote: r = agrees with the majority of the first attempts, so it teaches to move to the majority.
Deviation: the baseline is the mean of the same turn (the paper's is not published). Unverified: the windows of stage 1.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Grpo
from core.protocols import Facts, Method, Tuned
from methods.checks import exact
from methods.filters import has_winner
from methods.recipes import Card, Shared
from methods.samplers.attempts import Attempts
from methods.scorers.first_votes import FirstVotes
from methods.scorers.majority import Majority
from methods.selectors.two_turns import ByTurn

CARD = Card(
    "SCoRe: two attempts, and a reward for getting better (variant: by votes)",
    "arXiv 2409.12917",
    "none",
    "2",
    "plumbing",
    control="method.options.alpha=0",
    overrides=("method.sampler.temperature=1",),
)


class Settings(Part):
    alpha: float = Field(default=10.0, ge=0)
    """What a change for the better is paid beside the reward of the second attempt."""
    stage_1_windows: int = Field(default=2, ge=0)
    first_kl: float = Field(default=10.0, ge=0)
    """How much more strongly stage 1 holds the first attempt near the reference."""
    review: str = Field(default="There may be an error in your answer. Review it and answer again.", min_length=1)
    grpo: Grpo = Grpo(kl=0.01)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler that does not draw from the policy's distribution."""
    exact("score", shared.sampler)

    def stage(facts: Facts) -> Tuned:
        return {"stage": 1.0 if facts.window < settings.stage_1_windows else 2.0}

    return Method(
        name="score",
        sample=Attempts(shared.sampler, settings.review, logprobs=True),
        score=FirstVotes(Majority(shared.extract, shared.votes)),
        filters=(has_winner,),
        select=ByTurn("score", settings.alpha, settings.first_kl),
        objective=settings.grpo,
        columns=("behaviour",),
        tuned={"stage": 1.0 if settings.stage_1_windows else 2.0},
        tune=stage,
        bounds={"stage": (1.0, 2.0)},
    )
