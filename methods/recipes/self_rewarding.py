"""Self-Rewarding Language Models (Yuan et al. 2024, arXiv 2401.10020), without its seed data.

    r(y) = mean of k judgements of y by the policy, 0 to 5 points each
    y+ = argmax r,  y- = argmin r,  no pair if r(y+) = r(y-)
    loss = -log sigmoid(beta [log p(y+)/p_t(y+) - log p(y-)/p_t(y-)])          p_t: before the window's first step

Why it works: to tell a good answer from a bad one can be easier than to write one, and the judge improves with the
policy. Precondition: the model can judge, that is, its generation-verification gap (methods.monitors) is above 0. For
models below 1B it seldom is. Supervision: none (the variant self-rewarding-zero); the paper trains the judge on seed
data (EFT) first. People's votes do not count.

Deviation: no seed data, no self-written prompts. Versions are streamed; the paper trains two rounds on 3,964 and 6,942
pairs, and chooses checkpoints by another model. The rubric is worded anew. Equal texts are judged once. Its AlpacaEval
numbers are unverified here. Known: answers grow longer, and a weak rubric gives everything 5 points. Learning pauses if
too many judgements cannot be read. Null control: `shuffled`, the scores dealt out again within each prompt.
"""

from core.config import Part
from core.objectives import Dpo
from core.protocols import Method
from methods.checks import differ
from methods.judge_prompts import RUBRIC
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.judge import Judge, Judging, malformed, not_judgement, watching
from methods.selectors.extremes import Extremes
from methods.selectors.shuffled import Shuffled

CARD = Card(
    "Self-Rewarding Language Models, without seed data",
    "arXiv 2401.10020",
    "none",
    "1, and 3 judgements of each sample",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=(
        "method.sampler.n=4",
        "method.sampler.temperature=0.7",
        "method.sampler.top_p=0.9",
        "learning.replay_windows=1",
    ),
)


class Settings(Part):
    judge: Judging = Judging(k=3)
    shuffled: bool = False
    """The null control: pairs by scores that were permuted within the prompt."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("self_rewarding", shared.sampler)
    select = Extremes("self_rewarding")
    return Method(
        name="self_rewarding",
        sample=Iid(shared.sampler),
        score=Judge(RUBRIC, settings.judge, shared.extract),
        filters=(not_judgement, select.differing),
        select=Shuffled(select) if settings.shuffled else select,
        objective=settings.dpo,
        rows=2,
        tuned={"malformed": 0.0},
        tune=watching("self_rewarding", settings.judge),
        measure=malformed,
    )
