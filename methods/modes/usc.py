"""Universal self-consistency, arXiv 2311.17311: the model itself names the sample that most of the others agree with.

The only vote for answers that no pattern reads. If it names none, the first whole sample is given, with a share of 0.
Deviations: our wording; samples that do not fit are all cut to one length and never dropped.
"""

import random
import re
from collections.abc import Sequence

from pydantic import Field

from core.errors import PromptError
from core.messages import Candidate, ChatMessage, Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.judge_prompts import question
from methods.recipes import Shared
from methods.samplers.iid import greedily, sampling_of
from methods.turns import asking

CARD = ModeCard("The sample that the model finds most consistent with the others", "arXiv 2311.17311", samples=True)
ASK = "Which of these answers agrees most with the majority of them? Reply with the line\nMost consistent: <its number>"
NUMBER = re.compile(r"\bmost consistent[\s:=*(\[]{1,6}(?:answer\s*)?(\d+)\b", re.IGNORECASE)
LEAST_CHARS = 200
"""Samples are not cut shorter than this."""


class Settings(ModeSettings):
    n: int | None = Field(default=None, ge=2, le=16)
    """Samples; beyond about ten, models miscount. None: method.sampler.n."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    n = given.n or min(16, shared.sampler.n)
    drawn = await policy.generate(prompt, sampling_of(shared.sampler, n=n))
    whole = [candidate for candidate in drawn if candidate.finish == "stop"] or drawn
    first = ModeAnswer.of(whole[0], 0.0)
    progress.so_far(first)
    progress.aside(f"{n} samples")
    random.Random(prompt.id).shuffle(whole)  # against a liking for the first
    said = await _said(shared, prompt, policy, whole)
    found = NUMBER.findall(said.text)
    chosen = int(found[-1]) if found else -1
    if not 0 <= chosen < len(whole):
        return first
    return ModeAnswer.of(whole[chosen])


async def _said(shared: Shared, prompt: Prompt, policy: Policy, samples: Sequence[Candidate]) -> Candidate:
    chars = max(len(sample.text) for sample in samples)
    while True:
        shown = "\n\n".join(f"Answer {i}:\n{sample.text[:chars]}" for i, sample in enumerate(samples))
        text = f"Question:\n{question(prompt)}\n\n{shown}\n\n{ASK}"
        asked = asking(prompt.model_copy(update={"messages": (ChatMessage(role="user", content="?"),)}), text)
        try:
            (said,) = await policy.generate(asked, greedily(shared.sampler))
        except PromptError:
            if chars <= LEAST_CHARS:
                raise
            chars = max(LEAST_CHARS, chars // 2)
        else:
            return said
