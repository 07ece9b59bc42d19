"""Best of n by log-probability: the sample that the same version finds likeliest. The inference twin of Sharpening,
arXiv 2412.01951. It needs no pattern that reads answers. Cut samples lose to whole ones; of equals the first is given.
"""

from typing import Literal

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import sampling_of

CARD = ModeCard(
    "The likeliest of several samples", "arXiv 2412.01951", samples=True, measured="embedded model: +7.3 [+1.2, +13.5]"
)


class Settings(ModeSettings):
    n: int | None = Field(default=None, ge=2, le=64)
    """Samples. None: method.sampler.n."""
    norm: Literal["length", "none"] = "length"
    """length: the mean over tokens. none: the sum, which likes short answers."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    drawn = await policy.generate(prompt, sampling_of(shared.sampler, n=given.n or shared.sampler.n))
    progress.aside(f"{len(drawn)} samples")
    scores: dict[str, float] = {}
    for text in {candidate.text for candidate in drawn}:  # at temperature 1, whatever they were sampled at
        nats = await policy.logprobs(prompt, text)
        scores[text] = sum(nats) / (len(nats) if given.norm == "length" else 1)
    best = max(drawn, key=lambda candidate: (candidate.finish == "stop", scores[candidate.text]))
    return ModeAnswer.of(best)
