"""Two attempts at one question: independent first answers, and of each a second one after a review turn."""

import asyncio
from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Candidate, Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.samplers.iid import grouped, sampling_of
from methods.turns import then


@dataclass(frozen=True)
class Attempts:
    """A group of `n` first attempts, then a group of one for each second attempt, whose `parent` is the first one."""

    config: SamplerConfig
    review: str
    """What the user says between the two."""
    logprobs: bool = False

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        first = await policy.generate(prompt, sampling_of(self.config, n=self.config.n, logprobs=self.logprobs))

        async def second(candidate: Candidate) -> Group:
            chat = then(prompt, candidate, self.review)
            (again,) = await policy.generate(chat, sampling_of(self.config, n=1, logprobs=self.logprobs))
            name = stable_id("second", candidate.id, again.id)
            return Group(id=name, prompt=chat, candidates=(again,), parent=candidate.id)

        return [grouped(prompt, first), *await asyncio.gather(*map(second, first))]
