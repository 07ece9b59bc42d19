"""Mind the Gap: verify, filter, distill (Song et al. 2024, arXiv 2412.02674).

    u(y): the policy's own verdict on y          w = 1[u >= tau]          max sum w log p(y)

`verifier`: mc, the probability of Correct against Incorrect as the next word; cot_binary and cot_score, a verdict yes
or no, or 1 to 10 points, after reasoning; tournament, single elimination by comparisons. `also`: a second one that must
agree. All scores are between 0 and 1 (points are divided by 10).

Why it works: if the policy verifies better than it generates, survivors are better than samples. The surplus is the
generation-verification gap, and training can gain about that much.
Precondition: a gap above 0 (methods.monitors.gv_gap on labelled questions). The paper finds none in models below 1B
with nearly all prompted verifiers, and that it vanishes after two or three rounds. Supervision: none; votes of people
do not count.

Deviation: versions are streamed, and the paper's fine-tuning settings are unverified here; so is `value`. The paper
draws 128 samples with 4 examples in the prompt, here `sampler.n` without. The verifiers are worded anew. Candidates
without an answer are never imitated. Null control: `shuffled`, survival dealt out again within each prompt.
"""

from typing import Literal

from pydantic import Field

from core.config import Part
from core.objectives import Sft
from core.protocols import Method, Scorer
from methods.checks import differ
from methods.filters import has_winning_candidate
from methods.judge_prompts import BINARY, CORRECT, PAIR, SCORE
from methods.recipes import Card, Shared
from methods.reweight import Threshold
from methods.samplers.iid import Iid
from methods.scorers.judge import Judge, Judging, Probability, malformed, not_judgement, watching
from methods.scorers.tournament import Tournament
from methods.scorers.verified import Answered, Verified
from methods.selectors.shuffled import Shuffled
from methods.selectors.winners import Winners

CARD = Card(
    "Mind the Gap: verify, filter, distill",
    "arXiv 2412.02674",
    "none",
    "1, and a judgement of each sample (mc: one forward)",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=("method.sampler.temperature=0.7", "method.sampler.top_p=0.9"),
)
Verifier = Literal["mc", "cot_binary", "cot_score", "tournament"]


class Settings(Part):
    verifier: Verifier = "cot_score"
    also: Verifier | None = None
    """A second verifier; only what survives both is imitated."""
    keep: Literal["top", "tau"] = "top"
    """top: the best part `value` of each prompt's samples. tau: scores of at least `value`."""
    value: float = Field(default=0.25, gt=0, le=1)
    judge: Judging = Judging()
    max_winners: int = Field(default=64, ge=1)
    """Maximum number of distinct survivors of a prompt."""
    shuffled: bool = False
    """The null control."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("verify_filter", shared.sampler)
    judge, extract = settings.judge, shared.extract
    verifiers: dict[str | None, Scorer] = {
        "mc": Probability(CORRECT, extract, judge.ref, ("Correct", "Incorrect")),
        "cot_binary": Judge(BINARY, judge, extract),
        "cot_score": Judge(SCORE, judge, extract),
        "tournament": Tournament(PAIR, judge, extract),
    }
    chosen = [verifiers[name] for name in (settings.verifier, settings.also) if name is not None]
    select = Winners("verify_filter", settings.max_winners)
    return Method(
        name="verify_filter",
        sample=Iid(shared.sampler),
        score=Verified(Answered(extract), chosen, Threshold(settings.keep, settings.value)),
        filters=(not_judgement, has_winning_candidate),
        select=Shuffled(select) if settings.shuffled else select,
        objective=Sft(),
        tuned={"malformed": 0.0},
        tune=watching("verify_filter", judge),
        measure=malformed,
    )
