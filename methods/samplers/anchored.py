"""A fixed share of the prompts is answered by the base model, the others by the version that explores."""

import random
from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import BASE, Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import Iid


@dataclass(frozen=True)
class Anchored:
    """Independent candidates. The prompt's id decides whose, so that a prompt stays an anchor in every epoch."""

    config: SamplerConfig
    share: float

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        ref = BASE if self.anchors(prompt.id) else None
        return await Iid(self.config, ref=ref)(prompt, policy, tuned)

    def anchors(self, prompt_id: str) -> bool:
        return random.Random(stable_id("anchor", prompt_id)).random() < self.share
