"""SQ: visual Self-Questioning, its loss on questions (Sun et al. 2024, arXiv 2403.11299), for texts.

    loss = - (sum log p(answer tokens | question) + ratio sum log p(question tokens)) / (tokens, weighted alike)

Why it works: a question holds knowledge of its subject too. A model that can ask in the words of its users also writes
questions of its own that are worth exploring.
Precondition: as in lmsi. Supervision: none. Privacy: the model learns to repeat the questions. Only those of the data
set are learned, unless `live` adds those that people asked; redact them first (`prompts.live.redact`).

Deviation: a variant without pictures. The paper turns each question after the first into targets with probability
`ratio`; here every question weighs `ratio`. The paper masks the role tags; here the whole context is a target, the
system message and the tags of the template included, because its tokens do not tell them apart. Answers come from the
majority, as in lmsi. Null control: `shuffled` mixes the tokens of each question; the paper has none.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.asked import Asked
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "SQ: learning to ask",
    "arXiv 2403.11299",
    "none",
    "1",
    "plumbing",
    control="method.options.shuffled=true",
)


class Settings(Voting):
    ratio: float = Field(default=0.3, ge=0, le=1)
    """Weight of a token of a question; one of an answer weighs 1. 0: lmsi."""
    live: bool = False
    """True: questions that people asked are learned too, and may be repeated to others."""
    shuffled: bool = False
    """True: the null control. The tokens of each question in a random order."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("sq_ask", shared.sampler)
    winners = Winners("sq_ask", settings.max_winners)
    return Method(
        name="sq_ask",
        sample=Iid(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Asked(winners, settings.ratio, settings.live, settings.shuffled),
        objective=Sft(),
    )
