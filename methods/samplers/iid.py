"""Independent candidates: the sampler of self-consistency and of all voting recipes."""

from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Group, Prompt, Sampling
from core.protocols import Policy


@dataclass(frozen=True)
class Iid:
    """`n` candidates of one version in one group."""

    config: SamplerConfig
    logprobs: bool = False
    """Keep the log-probability of every sampled token."""

    async def __call__(self, prompt: Prompt, policy: Policy) -> list[Group]:
        config = self.config
        sampling = Sampling(
            n=config.n,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            logprobs=self.logprobs,
        )
        candidates = tuple(await policy.generate(prompt, sampling))
        group_id = stable_id("group", prompt.id, *(candidate.id for candidate in candidates))
        return [Group(id=group_id, prompt=prompt, candidates=candidates)]
