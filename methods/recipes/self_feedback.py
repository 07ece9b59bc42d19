"""Self-scored winners: a vote, and the policy's own verdict on what won it.

    y~ = majority answer          u(y) = p(Yes) / (p(Yes) + p(No)) after "does this answer need no improvement?"
    D = {(x, path) : answer(path) = y~ and u(path) >= min_score}          max log p(D)

Why it works: as in lmsi; among paths with the right answer, the verdict leaves out those that reach it badly.
Precondition: as in lmsi, and a policy whose verdict says more than chance, as in verify_filter. Supervision: none;
people's votes count in the ballot, and their corrections are not judged.

The verdict is that of self-scored feedback (Chaszczewicz et al. 2024, arXiv 2403.15482), which scores a feedback by the
probability that the response revised after it needs no further improvement, and trains on the best against the worst
feedback. Deviation: a variant. Here an answer itself is scored, not the revision after a feedback, and winners are
imitated instead of pairs compared. `min_score` is ours.
Null control: `shuffled`, the verdicts dealt out again over all samples of the prompt; lmsi is the control without them.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.judge_prompts import FINISHED
from methods.recipes import Card, Shared
from methods.reweight import Threshold
from methods.samplers.iid import Iid
from methods.scorers.judge import Pin, Probability, not_judgement, pinned
from methods.scorers.majority import Majority
from methods.scorers.verified import Verified
from methods.selectors.shuffled import Shuffled
from methods.selectors.winners import Winners

CARD = Card(
    "Self-scored winners, a variant of self-scored feedback",
    "arXiv 2403.15482",
    "none",
    "1, and one forward for each winner",
    "plumbing",
    control="method.options.shuffled=true",
)


class Settings(Part):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the vote's winner; groups with less are dropped."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Minimum probability that a winner needs no further improvement."""
    max_winners: int = Field(default=64, ge=1)
    """Maximum number of distinct winners of a prompt."""
    version: Pin = "explore"
    """Who judges: the version that is explored, or the base model, which does not change."""
    shuffled: bool = False
    """The null control."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("self_feedback", shared.sampler)
    vote = Majority(shared.extract, shared.votes)
    judge = Probability(FINISHED, shared.extract, pinned(settings.version))
    select = Winners("self_feedback", settings.max_winners)
    return Method(
        name="self_feedback",
        sample=Iid(shared.sampler),
        score=Verified(vote, (judge,), Threshold("tau", settings.min_score)),
        filters=(not_judgement, has_winner, has_winning_candidate, min_share(settings.min_share)),
        select=Shuffled(select) if settings.shuffled else select,
        objective=Sft(),
    )
