"""Agents that answer, read each other's answers, and answer again."""

import asyncio
from dataclasses import dataclass

from core.config import SamplerConfig
from core.messages import Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.modes.debate import OTHERS, others
from methods.samplers.iid import grouped, sampling_of
from methods.turns import then


@dataclass(frozen=True)
class Debate:
    """A group of the first answers of `n` agents, then for each further round a group of one for each agent, whose
    `parent` is its answer in the round before. No agent reads its own text among the others'."""

    config: SamplerConfig
    rounds: int

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        said = await policy.generate(prompt, sampling_of(self.config, n=self.config.n))
        groups, chats = [grouped(prompt, said)], [prompt] * len(said)
        for _ in range(1, self.rounds):
            before = said
            read = [OTHERS.replace("{others}", others(before, i)) for i in range(len(before))]
            chats = [then(*each) for each in zip(chats, before, read, strict=True)]
            replies = await asyncio.gather(*(policy.generate(chat, sampling_of(self.config, n=1)) for chat in chats))
            said = [reply[0] for reply in replies]
            groups += [
                grouped(chat, [now], kind="debate", parent=earlier.id)
                for chat, now, earlier in zip(chats, said, before, strict=True)
            ]
        return groups
