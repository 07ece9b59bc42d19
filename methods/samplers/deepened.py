"""Answers that are made to check themselves at growing lengths, in one text."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

from pydantic import Field

from core.config import Part, SamplerConfig
from core.messages import Candidate, ChatMessage, Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import grouped, sampling_of
from methods.turns import going_on


class Deepening(Part):
    """When an answer is made to check itself, in the mode and in the recipe."""

    first: int = Field(default=100, ge=8)
    """Tokens before the first check."""
    gamma: float = Field(default=2.0, gt=1, le=8)
    """Growth of the lengths, which count from the beginning and without the words of the checks."""
    trigger: str = Field(default="\nWait, let me check this step by step.\n", min_length=1)


@dataclass(frozen=True)
class Deepened:
    """A group of the `n` beginnings, and each further part in a group of its own whose `parent` is the part before.
    The text of a last part is the whole answer, so that it can be read; its tokens are its own."""

    config: SamplerConfig
    shape: Deepening

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        most = self.config.max_tokens
        begun = await policy.generate(prompt, sampling_of(self.config, max_tokens=min(self.shape.first, most)))
        rest = await asyncio.gather(*(self._rest(prompt, part, policy) for part in begun))
        return [grouped(prompt, begun), *(group for groups in rest for group in groups)]

    async def _rest(self, prompt: Prompt, part: Candidate, policy: Policy) -> list[Group]:
        parts = [(prompt, part)]
        async for each in further(self.config, self.shape, prompt, part, policy):
            parts.append(each)
        *_, (chat, last) = parts
        text = self.shape.trigger.join(each.text for _, each in parts)
        parts[-1] = chat, last.model_copy(update={"text": text})
        return [grouped(chat, [now], kind="deepened", parent=before.id) for (_, before), (chat, now) in pairwise(parts)]


async def further(
    config: SamplerConfig, shape: Deepening, prompt: Prompt, part: Candidate, policy: Policy
) -> AsyncIterator[tuple[Prompt, Candidate]]:
    """The parts behind the first one, each with the chat that it goes on in, until the model ends or `max_tokens` are
    sampled."""
    bound = min(shape.first, config.max_tokens)
    spent = len(part.completion_ids) // 4
    while part.finish != "stop" and bound <= spent < config.max_tokens:
        prompt = await _checking(policy, going_on(prompt, part), shape.trigger)
        bound = min(config.max_tokens, max(bound + 1, int(bound * shape.gamma)))
        (part,) = await policy.generate(prompt, sampling_of(config, n=1, max_tokens=bound - spent))
        spent += len(part.completion_ids) // 4
        yield prompt, part


async def _checking(policy: Policy, chat: Prompt, trigger: str) -> Prompt:
    """The chat in which the answer goes on behind the words of the check."""
    words = await policy.render(chat, trigger)
    last = chat.messages[-1]
    ids = chat.sampled_ids + words.completion_ids[:-4]  # without the stop token
    said = ChatMessage(role=last.role, content=last.content + trigger)
    return chat.model_copy(update={"id": words.id, "messages": (*chat.messages[:-1], said), "sampled_ids": ids})
