"""Candidates of two versions: one group each, for methods that compare the policy with another version."""

from dataclasses import dataclass

from core.config import SamplerConfig
from core.messages import BASE, Group, PolicyRef, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import Iid


@dataclass(frozen=True)
class Arms:
    """`n` candidates of the version that explores, then `n` of `other`, whose group is `fixed`."""

    config: SamplerConfig
    logprobs: bool = False
    other: PolicyRef = BASE

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        arms = (Iid(self.config, self.logprobs), Iid(self.config, self.logprobs, self.other))
        return [group for arm in arms for group in await arm(prompt, policy, tuned)]
