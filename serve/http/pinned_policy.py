"""The policy that a serving mode gets: pinned to one request, and counting what that request costs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from core.messages import Candidate, PolicyRef, Prompt, Sampling
from core.protocols import Policy


class PinnedPolicy:
    """The policy as one request sees it: one version, the client's fields of `Sampling`, and counts of what it cost."""

    def __init__(self, policy: Policy, ref: PolicyRef, sampling: Mapping[str, Any]) -> None:
        self._policy, self._ref, self._sampling = policy, ref, sampling
        self._made_by: set[PolicyRef] = set()
        self.tokens: Counter[str] = Counter()
        self.asked = 0
        """Continuations sampled."""
        self.prompt_tokens = 0
        """Each context counts once a call, since the engine reads it once for all samples; scored texts count too."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        sampling = sampling.model_copy(update=self._sampling)
        candidates = await self._policy.generate(prompt, sampling, ref or self._ref)
        self.asked += len(candidates)
        self.prompt_tokens += len(candidates[0].context_ids) // 4
        self.tokens[sampling.purpose] += sum(len(c.completion_ids) // 4 for c in candidates)
        self._made_by |= {made for c in candidates for made in (c.start, c.end)}
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        found = await self._policy.logprobs(prompt, text, ref or self._ref)
        self.prompt_tokens += len(found)
        return found

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return await self._policy.render(prompt, text)

    @property
    def versions(self) -> str:
        """`policy@v3`, or `policy@v3..v4` when the weights were swapped during the request."""
        first, *rest = sorted(self._made_by or {self._ref}, key=lambda ref: ref.version)
        return f"{first}..v{rest[-1].version}" if rest else str(first)
