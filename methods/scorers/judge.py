"""A judge: the policy reads each finished candidate and says what it is worth.

Judgements are groups too, with the role `judge` and the judged candidate as their parent, so that they are stored, late
votes do not pay for them again, and a recipe can learn from them. The score of a candidate is the mean of those of its
judgements that could be read; one without any, or cut off, is `UNJUDGED`. Equal texts are judged once.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

from core.config import Part
from core.errors import ConfigError, PromptError
from core.messages import BASE, Candidate, Group, PolicyRef, Prompt, Sampling, Scored, Verdict
from core.messages.model import JUDGE
from core.protocols import DropReason, Extract, Facts, History, Policy, Tuned, Tuner, Votes
from methods.judge_prompts import JudgePrompt
from methods.samplers.iid import grouped
from methods.scorers.majority import answer_of

UNJUDGED = -math.inf
"""The score of a candidate without a verdict: below all others."""
Stored = Mapping[str, Scored]
"""Id of a judge prompt -> its judgements."""
Value = Callable[[Candidate], float | None]
Pin = Literal["explore", "base"]


class Judging(Part):
    k: int = Field(default=1, ge=1, le=64)
    """Judgements of each candidate; their mean counts."""
    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    """Limit per judgement; one that reaches it is malformed."""
    version: Pin = "explore"
    """Who judges: the version that is explored, or the base model, which does not change."""
    max_malformed: float = Field(default=0.5, ge=0, le=1)
    """Learning pauses after a window in which a larger part of the judgements could not be read."""

    @model_validator(mode="after")
    def _differ(self) -> "Judging":
        if self.k > 1 and self.temperature == 0:
            raise ValueError(f"k={self.k} judgements at temperature 0 are equal; use k=1, or a temperature above 0")
        return self

    @property
    def ref(self) -> PolicyRef | None:
        return pinned(self.version)


def pinned(version: Pin) -> PolicyRef | None:
    return BASE if version == "base" else None


@dataclass(frozen=True)
class Judge:
    """Scores by `k` sampled judgements."""

    form: JudgePrompt
    judging: Judging
    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        past = stored(known)

        async def judged(asked: Prompt, parent: str) -> Scored | None:
            return past.get(asked.id) or await judgements(self.form, asked, parent, self.judging, policy)

        return await scored_by(self.form, groups, self.extract, judged)


@dataclass(frozen=True)
class Probability:
    """Scores by the probability of one word against another as the next word after the judge prompt."""

    form: JudgePrompt
    extract: Extract
    ref: PolicyRef | None = None
    words: tuple[str, str] = ("Yes", "No")

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        past = stored(known)

        async def judged(asked: Prompt, parent: str) -> Scored | None:
            if asked.id in past:
                return past[asked.id]
            try:
                yes = await yes_no(policy, asked, self.words, self.ref)
            except PromptError:
                return None
            verdict = Verdict(scores=(), answers=(), winner=self.words[0], share=yes, margin=0)
            return Scored(group=Group(id=asked.id, prompt=asked, candidates=(), parent=parent), verdict=verdict)

        return await scored_by(self.form, groups, self.extract, judged)


async def yes_no(
    policy: Policy, question: Prompt, words: tuple[str, str] = ("Yes", "No"), ref: PolicyRef | None = None
) -> float:
    """p(yes) / (p(yes) + p(no)) of the next token. Only the first token of each word counts: the rest of a word, and
    the stop token, would favor the shorter one."""
    yes, no = [(await policy.logprobs(question, each, ref))[0] for each in words]
    return 1 / (1 + math.exp(min(700.0, no - yes)))


async def judgements(form: JudgePrompt, asked: Prompt, parent: str, judging: Judging, policy: Policy) -> Scored | None:
    """`judging.k` judgements as a group: their scores, and as answers their numbers, None for a malformed one. None if
    the judge prompt does not fit the engine."""
    sampling = Sampling(
        n=judging.k,
        temperature=judging.temperature,
        top_p=judging.top_p,
        max_tokens=judging.max_tokens,
        purpose="judge",
    )
    try:
        candidates = await policy.generate(asked, sampling, judging.ref)
    except PromptError:
        return None
    values = [form.read(candidate.text) if candidate.finish == "stop" else None for candidate in candidates]
    group = grouped(asked, candidates, fixed=judging.ref is not None, kind=JUDGE, parent=parent)
    verdict = Verdict(
        scores=tuple(value or 0.0 for value in values),
        answers=tuple(None if value is None else f"{value:g}" for value in values),
        winner=None,
        share=0,
        margin=0,
    )
    return Scored(group=group, verdict=verdict)


async def scored_by(
    form: JudgePrompt,
    groups: Sequence[Group],
    extract: Extract,
    judged: Callable[[Prompt, str], Awaitable[Scored | None]],
) -> list[Scored]:
    """The groups with the scores of their judgements, and the judgements."""
    about = {
        candidate.id: form.about(group.prompt, answer=candidate.text)
        for group in groups
        for candidate in group.candidates
        if candidate.finish == "stop"
    }
    parents: dict[str, tuple[Prompt, str]] = {}
    for candidate_id, asked in about.items():
        parents.setdefault(asked.id, (asked, candidate_id))
    found = await asyncio.gather(*(judged(asked, parent) for asked, parent in parents.values()))
    made = {one.group.prompt.id: one for one in found if one is not None}

    def value(candidate: Candidate) -> float | None:
        asked = about.get(candidate.id)
        return None if asked is None or asked.id not in made else value_of(made[asked.id])

    return [*(valued(group, value, extract) for group in groups), *made.values()]


def valued(group: Group, value: Value, extract: Extract) -> Scored:
    """A group with these scores. The winner is the answer of its best candidate; there is no ballot, so no share."""
    values = [value(candidate) for candidate in group.candidates]
    scores = tuple(UNJUDGED if one is None else one for one in values)
    answers = tuple(answer_of(candidate, extract) for candidate in group.candidates)
    best, winner = max(
        ((score, answer) for score, answer in zip(scores, answers, strict=True) if answer is not None),
        key=lambda pair: pair[0],
        default=(UNJUDGED, None),
    )
    winner = winner if best > UNJUDGED else None
    return Scored(group=group, verdict=Verdict(scores=scores, answers=answers, winner=winner, share=0, margin=0))


def value_of(judgement: Scored) -> float | None:
    """The mean of the judgements that could be read; of a probability, itself."""
    if not judgement.group.candidates:
        return judgement.verdict.share
    values = read(judgement)
    return fmean(values) if values else None


def read(judgement: Scored) -> list[float]:
    """The numbers of the judgements that could be read."""
    verdict = judgement.verdict
    return [score for score, answer in zip(verdict.scores, verdict.answers, strict=True) if answer is not None]


def is_judgement(scored: Scored) -> bool:
    return scored.group.prompt.role == JUDGE


def stored(known: Sequence[Scored]) -> Stored:
    return {one.group.prompt.id: one for one in known if is_judgement(one)}


def not_judgement(scored: Scored, history: History) -> DropReason | None:
    """Drops the judgements, of which nothing is learned."""
    return "judgement" if is_judgement(scored) else None


def malformed(scored: Sequence[Scored], tuned: Tuned) -> dict[str, float]:
    """The part of the prompt's judgements that could not be read, as `malformed`."""
    answers = [answer for one in scored if is_judgement(one) for answer in one.verdict.answers]
    return {"malformed": sum(answer is None for answer in answers) / len(answers)} if answers else {}


def watching(recipe: str, judging: Judging) -> Tuner:
    """A tuner that only watches."""
    return lambda facts: {"malformed": watched(recipe, judging, facts)}


def watched(recipe: str, judging: Judging, facts: Facts) -> float:
    """The rate of malformed judgements in a window.

    Raises: ConfigError above the limit, with which the buffer pauses learning."""
    rate, _ = facts.measured.get("malformed", (0.0, 0))
    if rate > judging.max_malformed:
        raise ConfigError(
            f"{rate:.0%} of the judgements of recipe {recipe} in window {facts.window} could not be read, expected at "
            f"most {judging.max_malformed:.0%}; raise method.options.judge.max_tokens (now {judging.max_tokens}), use "
            "a model that follows instructions, or raise method.options.judge.max_malformed"
        )
    return rate
