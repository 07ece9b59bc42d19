"""Iterative deepening sampling (Chen et al. 2025, arXiv 2502.05449), with its samples learned.

    y = y1 t y2 t y3 ...        t: "check this"; the bounds of y1, y1 y2, ... grow by gamma
    y* = the majority of the answers at the ends        max log p(y1 y2 ... | x) over those that end in y*

Why it works: an answer that is made to check itself finds more of its slips, and the vote keeps those that did. The
words of the check are not learned, or the model would learn to say them.
Precondition: a model that reasons and heeds the check; others ignore it. Supervision: none. Null control: the same with
words that ask for nothing.

Unverified in the paper, so ours: the words, the bounds, and that one text grows. The paper samples only; learning from
the samples is our variant.
"""

from core.errors import ConfigError
from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.filters import has_winner, min_share
from methods.recipes import Card, Shared
from methods.samplers.deepened import Deepened, Deepening
from methods.scorers.last_votes import LastVotes
from methods.scorers.majority import Majority
from methods.selectors.deepened import Deepest
from methods.voting import Voting

CARD = Card(
    "Iterative deepening sampling (variant: learned)",
    "arXiv 2502.05449",
    "none",
    "1",
    "plumbing",
    control="method.options.trigger=' '",
)


class Settings(Deepening, Voting):
    """Both."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal, or none is checked."""
    differ("idsample", shared.sampler)
    if settings.first >= shared.sampler.max_tokens:
        raise ConfigError(
            f"method.options.first={settings.first} leaves no room for a check within method.sampler.max_tokens="
            f"{shared.sampler.max_tokens}; lower the first or raise the second"
        )
    return Method(
        name="idsample",
        sample=Deepened(shared.sampler, settings),
        score=LastVotes(Majority(shared.extract, shared.votes), shared.extract),
        filters=(has_winner, min_share(settings.min_share)),
        select=Deepest("idsample", settings.max_winners),
        objective=Sft(),
    )
