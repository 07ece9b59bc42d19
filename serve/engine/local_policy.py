"""`core.protocols.Policy` over an engine in this process, without Ray. Used by serving modes, by commands on a stopped
run, and by benchmarks."""

from collections import Counter

from core.codec import pack_ids, stable_id
from core.errors import PromptError
from core.messages import BASE, Candidate, PolicyRef, Prompt, Sampling
from serve.engine.engine import Engine


class EnginePolicy:
    """Generates and scores on one engine. `explore` is the version for `ref=None`. Smaller priorities go first."""

    def __init__(self, engine: Engine, explore: PolicyRef = BASE, priority: int = 0) -> None:
        self._engine = engine
        self._priority = priority
        self.explore = explore
        self.tokens: Counter[str] = Counter()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        candidates = await self._engine.generate(prompt, sampling, ref or self.explore, priority=self._priority)
        self.tokens[sampling.purpose] += sum(len(c.completion_ids) // 4 for c in candidates)
        return candidates

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        context, completion = self._engine.render(prompt, text)
        (row,) = await self._engine.score([[*context, *completion]], ref or self.explore, priority=self._priority)
        return row[len(context) - 1 :]

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return render_candidate(self._engine, prompt, text)


def render_candidate(engine: Engine, prompt: Prompt, text: str) -> Candidate:
    """`Policy.render` on one engine."""
    context, completion = engine.render(prompt, text)
    if len(context) + len(completion) > engine.limit:
        raise PromptError(
            f"prompt and answer have {len(context)} + {len(completion)} tokens, the engine holds {engine.limit}; "
            f"shorten them, or raise serve.engine.max_tokens"
        )
    return Candidate(
        id=stable_id("written", prompt.id, text),
        start=BASE,
        end=BASE,
        context_ids=pack_ids(context),
        completion_ids=pack_ids(completion),
        text=text,
        finish="stop",
        render_id=engine.render_id,
    )
