"""Iterative deepening sampling, arXiv 2502.05449: generate to a budget, ask for a check, go on with more, in one text.

Budgets grow by `gamma` and count from the beginning; the words of the check are not counted as generated. Unverified in
the paper, so ours: the words, the numbers, and that one text grows. For reasoning models; others ignore the check.
"""

from pydantic import Field

from core.messages import Candidate, ChatMessage, Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import sampling_of
from methods.turns import going_on

CARD = ModeCard("One answer that is made to check itself on the way", "arXiv 2502.05449")


class Settings(ModeSettings):
    first: int = Field(default=100, ge=8)
    """Tokens before the first check."""
    gamma: float = Field(default=2.0, gt=1, le=8)
    most: int | None = Field(default=None, ge=16)
    """Tokens in all. None: max_tokens, of the request or of method.sampler."""
    trigger: str = "\nWait, let me check this step by step.\n"


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    most = given.most or shared.sampler.max_tokens
    text, spent, bound, chat = "", 0, min(given.first, most), prompt
    while True:
        sampling = sampling_of(shared.sampler, n=1, max_tokens=bound - spent)
        (part,) = await policy.generate(chat, sampling)
        spent += len(part.completion_ids) // 4
        text += part.text
        progress.so_far(ModeAnswer(text, part.finish))
        if part.finish == "stop" or spent >= most or spent < bound:
            return ModeAnswer(text, part.finish)
        bound = min(most, max(bound + 1, int(bound * given.gamma)))
        progress.aside(f"checked after {spent} tokens")
        text += given.trigger
        chat = await _checking(policy, going_on(chat, part), part, given.trigger)


async def _checking(policy: Policy, chat: Prompt, part: Candidate, trigger: str) -> Prompt:
    """The chat in which the answer goes on behind the words of the check."""
    words = await policy.render(chat, trigger)
    last = chat.messages[-1]
    ids = chat.sampled_ids + words.completion_ids[:-4]  # without the stop token
    said = ChatMessage(role=last.role, content=last.content + trigger)
    return chat.model_copy(update={"id": words.id, "messages": (*chat.messages[:-1], said), "sampled_ids": ids})
