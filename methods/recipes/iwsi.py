"""IWSI: Importance Weighting Can Help LLMs Self-Improve (Jiang et al. 2024, arXiv 2408.09849), variants iwsi-people and
completion-only.

    w = L_v / loss(path)          DS = max(w, 1 / w)          D = {winning paths with DS <= limit}          max log p(D)

loss: the mean negative log-probability of a path's tokens. L_v: the same of texts that people wrote. limit: the least
by which the share `keep` of the winning paths of the last window is kept.

Why it works: some right answers come from odd or garbled texts. A path that is much likelier or much less likely than
people's texts is far from the distribution that is wanted, and is left out.
Precondition: as in lmsi, and people who correct. Supervision: people. Without at least `min_texts` corrected prompts
it keeps everything, as lmsi does.

Deviation: the loss is over the completion, the paper's over the question too. L_v is from corrections that reached the
quorum, on prompts that were corrected before they were explored, by the version that explored them; the paper's is from
a labelled set, before training. Earlier windows count with a weight that falls by `memory` a window, as L_v has to
follow the policy. The paper keeps the 80% with the least DS of the whole data set; here the limit is from a grid of
factors of 1.1, by the mean over prompts in the window before, so ties are kept and the share is only near `keep`. The
authors' code clips w to 0 to 2, which spares paths that are too likely; here it is not clipped.
Null control: `random` drops as many, drawn by their ids.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ, exact
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.scorers.read import Read
from methods.selectors.near import Near
from methods.selectors.winners import Winners
from methods.tuners.near import BOUNDS, UNKNOWN, NearTuner
from methods.voting import Voting, won

CARD = Card(
    "IWSI: Importance Weighting Can Help LLMs Self-Improve, by people's texts",
    "arXiv 2408.09849",
    "people",
    "1",
    "plumbing",
    control="method.options.random=true",
    overrides=("method.sampler.temperature=1",),
)


class Settings(Voting):
    keep: float = Field(default=0.8, gt=0, le=1)
    """Share of the winning candidates with the least DS that is kept."""
    min_texts: int = Field(default=50, ge=20)
    """Corrected prompts, each weighted by its age, from which L_v is known; below, nothing is left out."""
    memory: float = Field(default=0.8, ge=0, lt=1)
    """Factor of the weight of all earlier windows' texts in L_v, per window."""
    random: bool = False
    """True: the null control, which leaves out as many candidates, drawn by their ids."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for a sampler that does not draw from the policy's distribution, or with too few samples."""
    differ("iwsi", shared.sampler)
    exact("iwsi", shared.sampler)

    tuner = NearTuner(settings.min_share, settings.keep, settings.min_texts, settings.memory)
    winners = Winners("iwsi", settings.max_winners)
    return Method(
        name="iwsi",
        sample=Iid(shared.sampler, logprobs=True),
        score=Read(Majority(shared.extract, shared.votes)),
        filters=won(settings),
        select=Near(winners, settings.keep if settings.random else None),
        objective=Sft(),
        tuned=UNKNOWN,
        tune=tuner.tune,
        bounds=BOUNDS,
        measure=tuner.measure,
    )
