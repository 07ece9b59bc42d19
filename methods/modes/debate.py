"""Multiagent debate, as multiagent fine-tuning answers, arXiv 2501.05707: agents answer, read each other, answer again;
the last answers vote. Variant: the paper's agents are models of their own; here one version speaks for all, so only
sampling makes them differ.
"""

import asyncio
import random

from pydantic import Field

from core.messages import Candidate, Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.election import voted
from methods.recipes import Shared
from methods.samplers.iid import sampling_of
from methods.turns import then

CARD = ModeCard("Agents that read each other's answers, then a vote", "arXiv 2501.05707", samples=True)
OTHERS = "Other agents answered:\n\n{others}\n\nWith this in mind, answer the question again."
SHOWN = 5
"""The most answers of others that an agent reads."""


class Settings(ModeSettings):
    agents: int = Field(default=3, ge=2, le=8)
    rounds: int = Field(default=2, ge=2, le=4)


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    said = await policy.generate(prompt, sampling_of(shared.sampler, n=given.agents))
    chats = [prompt] * given.agents
    agreed = await voted(shared, prompt, said, policy)
    for number in range(1, given.rounds):
        progress.so_far(agreed)
        progress.aside(f"after round {number}: " + " | ".join(candidate.text for candidate in said))
        chats = [then(chats[i], said[i], OTHERS.replace("{others}", others(said, i))) for i in range(given.agents)]
        replies = await asyncio.gather(*(policy.generate(chat, sampling_of(shared.sampler, n=1)) for chat in chats))
        said = [reply[0] for reply in replies]
        now = await voted(shared, prompt, said, policy)
        agreed = now if now.share else agreed  # a round without any answer replaces nothing
    return agreed


def others(said: list[Candidate], own: int) -> str:
    """What the agent reads: never its own text."""
    texts = [candidate.text for i, candidate in enumerate(said) if i != own]
    random.Random(said[own].id).shuffle(texts)
    return "\n\n".join(texts[:SHOWN])
