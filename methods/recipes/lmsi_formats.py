"""LMSI in four formats and with questions of its own (Huang et al. 2022, arXiv 2210.11610).

    1  examples with reasoning + question -> path                2  examples without reasoning + question -> answer
    3  question + "Let's think step by step." -> path            4  question -> answer

Every path with the majority's answer is learned in all four; the answer alone is "The answer is X.".

Why it works: as in lmsi. The other formats keep the policy from needing the examples, or one way of asking.
Precondition: as in lmsi, and a model that is large enough to answer without reasoning. The effect on the embedded model
is predicted to be negative: formats 2 and 4 teach it to answer in its head, which is its known fault. So this is a
recipe of its own, and lmsi has one format. Supervision: none; texts of people are learned as asked only.

Deviation: as in lmsi; the examples are the turns before the question, without them there is no format 2. Where the
sentence of format 3 stands is unverified: here after the question. Equal texts of a prompt are one example, weighted by
their number, because a window keeps only one of equal examples; so weights are as published. Texts in formats 2 to 4
count as generated tokens, although nothing is sampled. The paper also writes questions for one data set from ten real
ones; `write` does so all the time.
Null control: `unvoted` teaches one random sample in the same formats.
"""

from pydantic import Field

from core.config import Part
from core.objectives import Sft
from core.protocols import Method
from methods.askers.questions import Questions
from methods.checks import differ
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.formats import Format, Formats
from methods.scorers.majority import Majority
from methods.scorers.unvoted import Unvoted
from methods.selectors.winners import Winners

CARD = Card(
    "Large Language Models Can Self-Improve, in four formats",
    "arXiv 2210.11610",
    "none",
    "1, and 1/n for each question written",
    "plumbing",
    control="method.options.unvoted=true",
)


class Settings(Part):
    formats: tuple[Format, ...] = (2, 3, 4)
    """The formats besides the sampled one."""
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner; groups with less are dropped. The paper: 0."""
    max_winners: int = Field(default=64, ge=1)
    """Maximum number of distinct winning candidates of a prompt and format that become examples."""
    write: int = Field(default=0, ge=0, le=8)
    """New questions that the policy writes for each prompt of the data set, to be explored next."""
    unvoted: bool = False
    """True: the null control, in which one random sample wins."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("lmsi_formats", shared.sampler)
    vote = Unvoted(shared.extract) if settings.unvoted else Majority(shared.extract, shared.votes)
    return Method(
        name="lmsi_formats",
        sample=Iid(shared.sampler),
        score=Formats(vote, shared.extract, settings.formats),
        filters=(has_winner, has_winning_candidate, min_share(settings.min_share)),
        select=Winners("lmsi_formats", settings.max_winners, distinct=False),
        objective=Sft(),
        ask=Questions(shared.sampler, settings.write) if settings.write else None,
    )
