"""A policy that knows how long ago its last answer came, so that the supervisor can tell whether its actor hangs."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from core.clock import Clock, Pulse
from core.messages import Candidate, PolicyRef, Prompt, Sampling
from core.protocols import Policy


class PulsePolicy:
    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self.tokens: Counter[str] = policy.tokens
        self._asking = 0
        self._pulse = Pulse(clock)

    @property
    def quiet_s(self) -> float:
        """Seconds since the last answer while a request is in flight; else 0."""
        return self._pulse.quiet_s

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        with self._waiting():
            return await self._policy.generate(prompt, sampling, ref)

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        with self._waiting():
            return await self._policy.logprobs(prompt, text, ref)

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        with self._waiting():
            return await self._policy.render(prompt, text)

    @contextmanager
    def _waiting(self) -> Generator[None]:
        if self._asking == 0:
            self._pulse.moved()
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            self._pulse.moved() if self._asking else self._pulse.idle()
