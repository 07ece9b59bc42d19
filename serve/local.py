"""The policy over an engine in this process, without Ray: for commands on a stopped run, and to measure against."""

from collections import Counter

from core.messages import BASE, Candidate, PolicyRef, Prompt, Sampling
from serve.engine import Engine


class EnginePolicy:
    """Generates and scores on one engine; `explore` is what None means."""

    def __init__(self, engine: Engine, explore: PolicyRef = BASE) -> None:
        self._engine = engine
        self.explore = explore
        self.tokens: Counter[str] = Counter()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        candidates = await self._engine.generate(prompt.messages, sampling, ref or self.explore)
        self.tokens[sampling.purpose] += sum(len(c.completion_ids) // 4 for c in candidates)
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        context, completion = self._engine.render(prompt.messages, text)
        (row,) = await self._engine.score([[*context, *completion]], ref or self.explore)
        return row[len(context) - 1 :]
