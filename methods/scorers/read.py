"""Lets the policy read what people wrote: their texts get its log-probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import pack_floats
from core.messages import Candidate, Group, Prompt, Scored
from core.protocols import Policy, Scorer, Votes


@dataclass(frozen=True)
class Read:
    """Another scorer's judgments. Candidates that people wrote get the log-probabilities of the version that explores,
    once: `known` has those of the last time."""

    of: Scorer

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        scored = await self.of(groups, votes, policy, known)
        before = {one.group.id: one.group for one in known}
        return [await _read(one, before.get(one.group.id), policy) for one in scored]


async def _read(scored: Scored, before: Group | None, policy: Policy) -> Scored:
    if scored.group.by == "sample":
        return scored
    if before is None:
        candidates = [await _with_logprobs(scored.group.prompt, c, policy) for c in scored.group.candidates]
        before = scored.group.model_copy(update={"candidates": tuple(candidates)})
    return scored.model_copy(update={"group": before})


async def _with_logprobs(prompt: Prompt, candidate: Candidate, policy: Policy) -> Candidate:
    logprobs = await policy.logprobs(prompt, candidate.text)
    return candidate.model_copy(update={"logprobs": pack_floats(logprobs)})
