"""Meta-Rewarding Language Models (Wu et al. 2024, arXiv 2407.19594), without its seed data.

    S(y) = mean of N judgements of y by the policy
    y+ = shortest with S >= (1-rho) max S + rho min S          y- = longest with S <= (1-rho) min S + rho max S
    j+, j- = judgements of the y whose N vary most, with the highest and the lowest rating (methods.elo) by a
             meta-judge, which compares each two in both orders
    loss = -log sigmoid(beta [log p(+)/p_t(+) - log p(-)/p_t(-)]) over both kinds of pairs

Why it works: as in self_rewarding, and the judge is trained too. rho prefers short answers among those about as good.
Precondition: as in self_rewarding. Supervision: none; the paper starts from a model trained on seed data (EFT).

Deviation: no seed data. Versions are streamed: `rhos` has one value for each round of `round` windows, and judge pairs
are learned in the first `judge_rounds` (later comparisons are still sampled, unused). N is 3 instead of 11, as N
judgements cost N (N - 1) comparisons. The weights of the places come from the last window, not from a whole iteration.
The limits of characters (2,500 of an answer, 1,100 of a judgement) hold in all rounds; in the paper they change. Its
checkpoint choice and its stop when the judge's scores are biased are left out. Rubric and meta-judge are worded anew.
Null control: `shuffled`, the scores of answers dealt out again within each prompt, and no judge pairs.
"""

from collections.abc import Sequence

from pydantic import Field

from core.config import Part
from core.messages import Example, Scored
from core.objectives import Dpo
from core.protocols import Facts, History, Method, Tuned
from methods.checks import differ
from methods.judge_prompts import META, RUBRIC
from methods.recipes import Card, Shared
from methods.samplers.iid import Iid
from methods.scorers.judge import Judge, Judging, malformed, watched
from methods.scorers.meta_judge import MetaJudge
from methods.selectors.extremes import Extremes
from methods.selectors.judge_pairs import FIRST, JudgePairs
from methods.selectors.shuffled import Shuffled

CARD = Card(
    "Meta-Rewarding Language Models, without seed data",
    "arXiv 2407.19594",
    "none",
    "1, 3 judgements of each sample, and 6 comparisons",
    "plumbing",
    control="method.options.shuffled=true",
    overrides=(
        "method.sampler.n=7",
        "method.sampler.temperature=0.8",
        "method.sampler.top_p=0.95",
        "learning.replay_windows=1",
    ),
)


class Settings(Part):
    judge: Judging = Judging(k=3, temperature=0.8, top_p=0.95)
    meta: Judging = Judging(k=1, temperature=0.8, top_p=0.95)
    """How judgements are compared. Malformed comparisons count with malformed judgements, against `judge`'s limit."""
    rhos: tuple[float, ...] = Field(default=(0.0, 0.32, 0.32, 0.4), min_length=1)
    """Width of the best and the worst tier, as a part of the range of scores, in each round; the last value stays."""
    round: int = Field(default=16, ge=1)
    """Windows in a round."""
    judge_rounds: int = Field(default=2, ge=0)
    """Rounds in which judge pairs are learned."""
    max_chosen: int = Field(default=2500, ge=1)
    """Greatest number of characters of a chosen answer."""
    max_judgement: int = Field(default=1100, ge=1)
    """Greatest number of characters of a chosen judgement."""
    shuffled: bool = False
    """The null control."""
    dpo: Dpo = Dpo(beta=0.1)


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("meta_rewarding", shared.sampler)
    answers = Extremes("meta_rewarding", lengths=True, max_chosen=settings.max_chosen)
    judges = JudgePairs("meta_rewarding", META, settings.max_judgement)

    def select(scored: Sequence[Scored], history: History) -> list[Example]:
        if settings.shuffled:
            return Shuffled(answers)(scored, history)
        return [*answers(scored, history), *(judges(scored, history) if history.tuned.get("judging", 1.0) else ())]

    def tune(facts: Facts) -> Tuned:
        done = facts.window // settings.round
        first, _ = facts.measured.get(FIRST, (facts.tuned[FIRST], 0))
        rates = {"malformed": watched("meta_rewarding", settings.judge, facts), FIRST: first}
        rho = settings.rhos[min(done, len(settings.rhos) - 1)]
        return {**rates, "rho": rho, "judging": float(done < settings.judge_rounds)}

    return Method(
        name="meta_rewarding",
        sample=Iid(shared.sampler),
        score=MetaJudge(Judge(RUBRIC, settings.judge, shared.extract), META, settings.meta),
        filters=(answers.differing,),
        select=select,
        objective=settings.dpo,
        rows=2,
        tuned={"malformed": 0.0, FIRST: 0.5, "rho": settings.rhos[0], "judging": float(settings.judge_rounds > 0)},
        tune=tune,
        measure=lambda scored, tuned: {**malformed(scored, tuned), **judges.measure(scored, tuned)},
    )
