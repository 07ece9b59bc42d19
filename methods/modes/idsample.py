"""Iterative deepening sampling, arXiv 2502.05449: generate to a budget, ask for a check, go on with more, in one text.

Budgets grow by `gamma` and count from the beginning; the words of the check are not counted as generated. Unverified in
the paper, so ours: the words, the numbers, and that one text grows. For reasoning models; others ignore the check.
"""

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.deepened import Deepening, further
from methods.samplers.iid import sampling_of

CARD = ModeCard("One answer that is made to check itself on the way", "arXiv 2502.05449")


class Settings(Deepening, ModeSettings):
    most: int | None = Field(default=None, ge=16)
    """Tokens in all. None: max_tokens, of the request or of method.sampler."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    sampler = shared.sampler.model_copy(update={"max_tokens": given.most or shared.sampler.max_tokens})
    one = sampling_of(sampler, n=1, max_tokens=min(given.first, sampler.max_tokens))
    (begun,) = await policy.generate(prompt, one)
    text, finish, spent = begun.text, begun.finish, len(begun.completion_ids) // 4
    progress.so_far(ModeAnswer(text, finish))
    async for _, part in further(sampler, given, prompt, begun, policy):
        progress.aside(f"checked after {spent} tokens")
        text, finish = text + given.trigger + part.text, part.finish
        spent += len(part.completion_ids) // 4
        progress.so_far(ModeAnswer(text, finish))
    return ModeAnswer(text, finish)
