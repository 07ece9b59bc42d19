"""Self-consistency, arXiv 2203.11171: the first of the samples with the most common answer.

Samples are drawn in two rounds: as many as can decide the ballot if they agree, then the rest, if they do not. So the
winner is that of all `n` samples, often for fewer tokens. Deviation: the paper returns only the answer; here the client
gets the sample's whole text. If no sample has an answer, the result is the first sample that was not cut off, with a
share of 0.
"""

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.election import elected
from methods.recipes import Shared
from methods.samplers.decided import Decided

CARD = ModeCard(
    "The most common answer of several samples",
    "arXiv 2203.11171",
    samples=True,
    measured="embedded model: +0.0 [-7.6, +7.6]",
)


class Settings(ModeSettings):
    n: int | None = Field(default=None, ge=2, le=64)
    """Samples. None: method.sampler.n."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    n = given.n or shared.sampler.n
    draw = Decided(shared.sampler, shared.extract, n, rounds=2, drawn=lambda k: progress.aside(f"{k} of {n} samples"))
    (group,) = await draw(prompt, policy)
    best, verdict = await elected(shared, prompt, group.candidates, policy)
    return ModeAnswer.of(best, verdict.share, sum(verdict.scores) / n)
