"""SimPLE: Entailment as Robust Self-Learner (Ge et al. 2023, arXiv 2305.17197), variant simple-text.

    z_i = (J_i - mu_i) / sigma_i          J_i: weight of the neighbours of sample i with another answer
    y~ = argmax_y sum over sure i of 1[answer(path_i) = y]          D = {(x, path_i) : i sure, answer(path_i) = y~}

mu and sigma are those of J if the neighbours' answers were drawn at random; the fifth with the greatest z is unsure.

Why it works: texts that are alike should have the same answer. One with another answer than all texts like it is a
slip, so it neither votes nor is learned.
Precondition: as in lmsi, and slips among similar texts. Supervision: none; a sample that people voted on stays.

Deviation: the paper classifies sentences by an entailment model that was trained on labels (so its supervision is a
key of another task), and a pass with dropout is a vote; here a sample is one. Its neighbours are among all unlabeled
data by distance of embeddings, nine with itself; here among the samples of the prompt, by common words and pairs of
words, `k` others. It removes a fifth in any case; here only those with z > 0, so that unanimous samples stay.
Null control: `shuffled` gives each sample the neighbours of another.
"""

from pydantic import Field

from core.errors import ConfigError
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.scorers.neighbours import Neighbours
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "SimPLE: simple pseudo-label editing, by texts",
    "arXiv 2305.17197",
    "none",
    "1",
    "plumbing",
    control="method.options.shuffled=true",
)


class Settings(Voting):
    k: int = Field(default=3, ge=1)
    """Neighbours of a sample."""
    unsure: float = Field(default=0.2, ge=0, le=0.5)
    """Largest share of the samples that is removed."""
    shuffled: bool = False
    """True: the null control, which gives each sample the neighbours of another."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal, or with too few for `k` neighbours."""
    differ("simple", shared.sampler)
    if settings.k >= shared.sampler.n:
        raise ConfigError(
            f"recipe simple compares a sample with method.options.k={settings.k} others, but method.sampler.n="
            f"{shared.sampler.n}; use a k below n"
        )
    vote = Majority(shared.extract, shared.votes)
    return Method(
        name="simple",
        sample=Iid(shared.sampler),
        score=Neighbours(vote, shared.extract, settings.k, settings.unsure, settings.shuffled),
        filters=won(settings),
        select=Winners("simple", settings.max_winners),
        objective=Sft(),
    )
