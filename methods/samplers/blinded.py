"""Candidates with and without the evidence in the prompt."""

import asyncio
from dataclasses import dataclass

from core.config import SamplerConfig
from core.errors import PromptError
from core.messages import Candidate, Group, Prompt
from core.protocols import UNTUNED, Policy, Tuned
from methods.evidence import blinded, divided
from methods.samplers.iid import Iid, grouped


@dataclass(frozen=True)
class Blinded:
    """`n` candidates of the prompt, then `n` that answer its question alone (methods.evidence), put behind the whole
    prompt as if they answered it. A prompt without evidence gets one candidate, so that its drop is counted."""

    config: SamplerConfig

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        parts = divided(prompt)
        if parts is None:
            return await Iid(self.config, n=1)(prompt, policy, tuned)
        sampler = Iid(self.config)
        seeing = await sampler(prompt, policy, tuned)
        (blind,) = await sampler(blinded(prompt, parts.question), policy, tuned)
        moved = await asyncio.gather(*(_moved(prompt, candidate, policy) for candidate in blind.candidates))
        return [*seeing, grouped(prompt, [candidate for candidate in moved if candidate is not None], kind="blinded")]


async def _moved(prompt: Prompt, candidate: Candidate, policy: Policy) -> Candidate | None:
    """The candidate's text behind this prompt. None if that is too long for the engine."""
    try:
        rendered = await policy.render(prompt, candidate.text)
    except PromptError:
        return None
    kept = {"id": candidate.id, "start": candidate.start, "end": candidate.end, "finish": candidate.finish}
    return rendered.model_copy(update=kept)
