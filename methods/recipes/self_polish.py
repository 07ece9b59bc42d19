"""Self-Polish: lmsi on the questions and on the policy's own rewordings of them (Xi et al. 2023, arXiv 2305.14497).

    q' ~ p(q, rewrite more clearly)          then lmsi on q and on q'

Why it works: a question that is asked more clearly is answered better, and its majority is surer. The paper rewrites at
inference time only (the serving mode `polish`); to learn from rewordings is ours.
Precondition: a model that follows the instruction to rewrite. Supervision: none. Null control: lmsi, which asks each
question as it stands.

Only questions whose vote is unsure are reworded, and a rewording must keep every number. What is learned is the answer
to the rewording behind the rewording: the original question gains only by what both have in common.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method
from methods.askers.polished import Polished
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "Self-Polish: questions reworded by the policy",
    "arXiv 2305.14497",
    "none",
    "1, and 1/n for each question reworded",
    "plumbing",
    control="lmsi",
)


class Settings(Voting):
    unsure: float = Field(default=0.75, ge=0, le=1)
    """Questions whose winner has a smaller share are reworded."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("self_polish", shared.sampler)
    return Method(
        name="self_polish",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Winners("self_polish", settings.max_winners),
        objective=Sft(),
        ask=Polished(shared.sampler, settings.unsure),
    )
