"""Multiagent fine-tuning (Subramaniam et al. 2025, arXiv 2501.05707), with one model for all agents.

    n agents answer, read each other, answer again; y* = the majority of the last answers
    generators: max log p(y1 | x) where y1 = y*          critics: max log p(y2 | x, y1, others) where y2 = y*

Why it works: agents that specialize stay different, so their debate keeps finding what one model trained on its own
samples no longer does.
Precondition: a model that follows the request to read others. Supervision: none. Null control: unvoted.

**Here one adapter learns the parts of all agents, which is the paper's control, not its method**: a version holds one
adapter. So no effect is claimed, and diversity is expected to fall. Deviations: answers that a critic gave before are
not learned (the authors' code learns them too, wrong ones included); others' texts are shown, not summarized; versions
are streamed.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.debate import Debate
from methods.scorers.last_votes import LastVotes
from methods.scorers.majority import Majority
from methods.selectors.debates import Debates

CARD = Card(
    "Multiagent fine-tuning, its control: one model for all agents",
    "arXiv 2501.05707",
    "none",
    "1 a round",
    "plumbing",
)


class Settings(Part):
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner of the last answers; debates with less are dropped."""
    rounds: int = Field(default=2, ge=2, le=4)
    generators: bool = True
    """Learn first answers."""
    critics: bool = True
    """Learn last answers behind the debate."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("multiagent", shared.sampler)
    return Method(
        name="multiagent",
        sample=Debate(shared.sampler, settings.rounds),
        score=LastVotes(Majority(shared.extract, shared.votes), shared.extract),
        filters=(has_winner, min_share(settings.min_share)),
        select=Debates("multiagent", settings.generators, settings.critics),
        objective=Sft(),
    )
