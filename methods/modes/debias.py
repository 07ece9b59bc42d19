"""Self-debiasing by re-ranking, after arXiv 2103.00453: the sample that a stated fault makes the least likelier.

The paper lowers the probability of each next token that the fault favours, which needs paired rows in one step of the
engine. Variant: whole samples are scored by log p(y | x) less the greatest log p(y | x with the fault asked for).
"""

from pydantic import Field

from core.messages import ChatMessage, Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import sampling_of

CARD = ModeCard(
    "The sample that least has a fault which you describe", "arXiv 2103.00453", samples=True, needs=("faults",)
)
WITH_FAULT = "Your next answer contains {fault}."


class Settings(ModeSettings):
    faults: tuple[str, ...] = Field(min_length=1, max_length=8)
    """What an answer must not have, each described in a few words: "an insult", "an invented source"."""
    n: int | None = Field(default=None, ge=2, le=64)
    """Samples. None: method.sampler.n."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    drawn = await policy.generate(prompt, sampling_of(shared.sampler, n=given.n or shared.sampler.n))
    progress.aside(f"{len(drawn)} samples")
    scores: dict[str, float] = {}
    for text in {candidate.text for candidate in drawn}:
        plain = sum(await policy.logprobs(prompt, text))
        biased = [sum(await policy.logprobs(_asking_for(prompt, fault), text)) for fault in given.faults]
        scores[text] = plain - max(biased)
    best = max(drawn, key=lambda candidate: (candidate.finish == "stop", scores[candidate.text]))
    return ModeAnswer.of(best)


def _asking_for(prompt: Prompt, fault: str) -> Prompt:
    last = prompt.messages[-1]
    text = f"{last.content}\n\n{WITH_FAULT.replace('{fault}', fault)}"
    return prompt.model_copy(update={"messages": (*prompt.messages[:-1], ChatMessage(role=last.role, content=text))})
