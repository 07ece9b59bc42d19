"""The policy that a serving mode gets: pinned to one request, counting what it costs, and keeping its budget."""

from collections import Counter
from dataclasses import dataclass

from core.errors import BudgetSpent
from core.messages import Candidate, PolicyRef, Prompt, Sampling
from core.protocols import Policy


@dataclass(frozen=True)
class Budget:
    """What one request may generate, hidden work included."""

    tokens: int
    samples: int


class PinnedPolicy:
    """The policy as one request sees it: one version, and counts of what it cost. Each sample has a seed of its own if
    the client set one."""

    def __init__(self, policy: Policy, ref: PolicyRef, seed: int | None, budget: Budget) -> None:
        self._policy, self._ref, self._seed, self._budget = policy, ref, seed, budget
        self._made_by: set[PolicyRef] = set()
        self._read: set[bytes] = set()
        self._reserved = 0
        self.tokens: Counter[str] = Counter()
        self.asked = 0
        """Continuations sampled."""
        self.prompt_tokens = 0
        """Each context counts once, since the engine reads it once for all its samples; scored texts count too."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        """Raises: BudgetSpent for a call that could pass the budget; it is not made."""
        if self._seed is not None:
            sampling = sampling.model_copy(update={"seed": self._seed + self.asked})
        most = sampling.n * sampling.max_tokens
        self._check(sampling.n, most)
        self.asked += sampling.n
        self._reserved += most
        try:
            candidates = await self._policy.generate(prompt, sampling, ref or self._ref)
        finally:
            self._reserved -= most
        context = candidates[0].context_ids
        if context not in self._read:
            self._read.add(context)
            self.prompt_tokens += len(context) // 4
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

    def _check(self, samples: int, tokens: int) -> None:
        spent = self.tokens.total() + self._reserved
        if self.asked + samples > self._budget.samples:
            raise BudgetSpent(
                f"a call of {samples} samples after {self.asked} is more than the {self._budget.samples} of one "
                "request; ask for fewer, or raise serve.modes.budget_samples"
            )
        if spent + tokens > self._budget.tokens:
            raise BudgetSpent(
                f"a call of up to {tokens} tokens after {spent} could pass the request's budget of "
                f"{self._budget.tokens}; lower max_tokens, or raise budget_tokens and serve.modes.budget_tokens"
            )
