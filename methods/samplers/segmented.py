"""Samples that solve, verify and solve again in one text, cut into these segments."""

import re
from dataclasses import dataclass
from itertools import pairwise

from core.codec import stable_id
from core.errors import PromptError
from core.messages import Candidate, Group, Prompt
from core.protocols import UNTUNED, Policy, Sampler, Tuned
from methods.samplers.iid import grouped
from methods.turns import going_on

VERIFY, AGAIN = "Wait,", "Let me try again."
"""What opens a verification, and another solution (S2R, arXiv 2502.12853)."""
_OPENS = re.compile(rf"{re.escape(VERIFY)}|{re.escape(AGAIN)}")


@dataclass(frozen=True)
class Segmented:
    """The first segments of all samples in one group, and each further one in a group of its own whose `parent` is the
    segment before. A segment keeps its tokens as sampled, with its opening words; where these words do not begin at a
    border of tokens, the segments around them are one."""

    sample: Sampler

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        chains = [
            await _chain(candidate, prompt, policy)
            for group in await self.sample(prompt, policy, tuned)
            for candidate in group.candidates
        ]
        first = grouped(prompt, [chain[0] for chain in chains], kind="segments")
        return [first, *(group for chain in chains for group in _further(prompt, chain))]


def segments(text: str) -> list[str]:
    """The text in segments: solution, verification, solution, ... Words that open what is open already begin nothing.

    >>> segments("7. Wait, no. Wait, 8? Let me try again. 8.")
    ['7. ', 'Wait, no. Wait, 8? ', 'Let me try again. 8.']"""
    starts, open_now = [0], AGAIN
    for found in _OPENS.finditer(text):
        if found[0] != open_now and found.start() > 0:
            starts.append(found.start())
            open_now = found[0]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


async def _chain(candidate: Candidate, prompt: Prompt, policy: Policy) -> list[Candidate]:
    """The candidate's segments as candidates."""
    texts, borders = [""], [0]
    for segment in segments(candidate.text):
        length = sum(map(len, texts))
        border = await _border(candidate, prompt, length, policy) if length else None
        if border is not None and borders[-1] < border < len(candidate.completion_ids):
            texts.append("")
            borders.append(border)
        texts[-1] += segment
    ends = [*borders[1:], len(candidate.completion_ids)]
    return [
        candidate.model_copy(
            update={
                "id": stable_id("segment", candidate.id, str(place)),
                "context_ids": candidate.context_ids + candidate.completion_ids[:start],
                "completion_ids": candidate.completion_ids[start:end],
                "logprobs": candidate.logprobs[start:end],
                "text": text,
                "finish": candidate.finish if end == ends[-1] else "stop_string",
            }
        )
        for place, (text, start, end) in enumerate(zip(texts, borders, ends, strict=True))
    ]


def _further(prompt: Prompt, chain: list[Candidate]) -> list[Group]:
    found: list[Group] = []
    for before, candidate in pairwise(chain):
        prompt = going_on(prompt, before)
        found.append(grouped(prompt, [candidate], kind="segments", parent=before.id))
    return found


async def _border(candidate: Candidate, prompt: Prompt, length: int, policy: Policy) -> int | None:
    """Bytes of the packed tokens of the first `length` characters; None if these are no tokens of the sample."""
    try:
        ids = (await policy.render(prompt, candidate.text[:length])).completion_ids[:-4]  # without the stop token
    except PromptError:
        return None
    return len(ids) if candidate.completion_ids.startswith(ids) else None
