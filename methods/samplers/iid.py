"""Independent candidates: the sampler of self-consistency and of all voting recipes."""

from dataclasses import dataclass

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Candidate, Group, PolicyRef, Prompt, Sampling
from core.protocols import UNTUNED, Policy, Tuned


@dataclass(frozen=True)
class Iid:
    """`n` candidates of one version in one group. A tuned `temperature` replaces the configured one."""

    config: SamplerConfig
    logprobs: bool = False
    """Keep the log-probability of every sampled token."""
    ref: PolicyRef | None = None
    """Always sample from this version. None: from the one that explores."""
    n: int | None = None
    """None: as configured."""

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        temperature = tuned.get("temperature", self.config.temperature)
        n = self.n or self.config.n
        sampling = sampling_of(self.config, n=n, temperature=temperature, logprobs=self.logprobs)
        return [grouped(prompt, await policy.generate(prompt, sampling, self.ref), fixed=self.ref is not None)]


def greedily(config: SamplerConfig) -> Sampling:
    return sampling_of(config, n=1, temperature=0)


def sampling_of(config: SamplerConfig, **other: object) -> Sampling:
    """As configured, but for the `other` fields."""
    names = ("n", "temperature", "top_p", "max_tokens")
    return Sampling.model_validate({name: getattr(config, name) for name in names} | other)


def grouped(
    prompt: Prompt,
    candidates: list[Candidate],
    *,
    fixed: bool = False,
    kind: str = "group",
    parent: str | None = None,
) -> Group:
    """A group of sampled candidates, named by them."""
    name = stable_id(kind, prompt.id, *(candidate.id for candidate in candidates))
    return Group(id=name, prompt=prompt, candidates=tuple(candidates), fixed=fixed, parent=parent)
