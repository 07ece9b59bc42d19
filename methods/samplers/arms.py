"""Two arms of one prompt: the version that explores, and the base model."""

import asyncio
from dataclasses import dataclass

from core.config import SamplerConfig
from core.messages import BASE, Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import Iid


@dataclass(frozen=True)
class Arms:
    """A group of the version that explores and a group of version 0, in this order, each with all samples."""

    config: SamplerConfig
    logprobs: bool = False
    """Keep the log-probability of every sampled token."""

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        arms = (Iid(self.config, self.logprobs), Iid(self.config, self.logprobs, BASE))
        current, base = await asyncio.gather(*(arm(prompt, policy, tuned) for arm in arms))
        return [*current, *base]
