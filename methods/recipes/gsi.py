"""GSI: Guided Self-Improvement (Ding et al. 2024, arXiv 2411.00750), driven by answers.

    D = {(x, path_i) : answer(path_i) = y~}          and, if too few paths are right,
        {(x, path) : path ~ p(. | x, hint y~), answer(path) = y~}          max log p(D)

Why it works: a prompt that is too hard for the samples gives nothing to learn. Told the answer, the model often finds
a way to it in its own words.
Precondition: the model can follow a hint; the embedded model never saw one, so there it is plumbing only. Supervision:
with `oracle=people` (variant gsi-people) the hint is the answer that enough people voted for and no sample reached;
without votes it is lmsi. With `oracle=vote` (variant gsi-vote), none: the majority's answer, for prompts with fewer
than `min_right` samples that have it.

Deviation: the paper knows the gold answers; its other hints (rationale, restart, teacher) are left out. All versions
start from the last one; the paper starts each iteration from the original model. It keeps all right texts; here
`max_winners` distinct ones. Texts that only repeat the answer are dropped; words are compared, so a text may pass with
an empty phrase. Cost: up to `rounds` more samples. Null control: `wrong_hint` gives another answer as the hint.
"""

from typing import Literal

from pydantic import Field

from core.config import Part
from core.errors import ConfigError
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, has_winning_candidate, min_share
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.guided import Guided
from methods.selectors.winners import Winners

CARD = Card(
    "GSI: Guided Self-Improvement",
    "arXiv 2411.00750",
    "people",
    "1, and `rounds` samples for prompts that need a hint",
    "plumbing",
    control="method.options.wrong_hint=true",
)


class Settings(Part):
    oracle: Literal["people", "vote"] = "people"
    """Whose answer is the hint: people's, if no sample reached it, or the majority's, if few samples did."""
    min_right: int = Field(default=4, ge=1)
    """Prompts with fewer samples that have the answer get guided ones, until they have as many."""
    rounds: int = Field(default=8, ge=1)
    """Maximum number of guided samples of a prompt."""
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner, as in lmsi. An answer that enough people voted for needs none to be a hint."""
    max_winners: int = Field(default=64, ge=1)
    """Maximum number of distinct winning candidates of a group that become examples."""
    wrong_hint: bool = False
    """True: the null control. The hint is the answer of another sample."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal, or no prompt could get a hint."""
    differ("gsi", shared.sampler)
    least = settings.min_share * shared.sampler.n
    if settings.oracle == "vote" and settings.min_right <= least:
        raise ConfigError(
            f"recipe gsi with method.options.oracle=vote gives no hint: method.options.min_share={settings.min_share} "
            f"of method.sampler.n={shared.sampler.n} is {least:g} right samples, and method.options.min_right="
            f"{settings.min_right} asks for no more; raise min_right above {least:g}, or lower min_share"
        )
    guided = Guided(
        shared.extract,
        shared.votes,
        shared.sampler,
        settings.oracle,
        settings.min_right,
        settings.rounds,
        settings.min_share,
        settings.wrong_hint,
    )
    return Method(
        name="gsi",
        sample=Iid(shared.sampler),
        score=guided,
        filters=(has_winner, has_winning_candidate, min_share(settings.min_share)),
        select=Winners("gsi", settings.max_winners),
        objective=Sft(),
    )
