"""The policy writes new questions after the example of questions of the data set."""

import random
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.codec import stable_id
from core.config import SamplerConfig
from core.messages import Candidate, ChatMessage, Prompt, Scored
from core.protocols import Policy
from methods.data.prompts import as_prompt
from methods.data.text import asked_text
from methods.samplers.iid import sampling_of

EXAMPLES = 10
"""Questions that the policy is shown."""
END = re.compile(r"\n\s*\n|\n\s*[QA]:")


@dataclass(frozen=True)
class Questions:
    """Up to `n` new questions for each explored prompt of the data set, from the last ten of its questions in random
    order. Written questions get what stands before the question in that prompt, and lead to no further ones."""

    config: SamplerConfig
    n: int
    recent: deque[str] = field(default_factory=lambda: deque[str](maxlen=EXAMPLES))

    async def __call__(self, prompt: Prompt, policy: Policy, scored: Sequence[Scored]) -> list[Prompt]:
        if prompt.origin != "dataset":
            return []
        if asked_text(prompt) not in self.recent:
            self.recent.append(asked_text(prompt))
        if len(self.recent) < EXAMPLES:
            return []
        examples = list(self.recent)
        random.Random(stable_id("questions", prompt.id)).shuffle(examples)
        written = [
            written_in(candidate)
            for candidate in await policy.generate(self._request(examples), sampling_of(self.config, n=self.n))
        ]
        new = dict.fromkeys(text for text in written if text and text not in examples)
        return [_asked(prompt, text) for text in new]

    def _request(self, examples: Sequence[str]) -> Prompt:
        shown = "\n\n".join(f"Q: {text}" for text in examples)
        return as_prompt(f"Write one more question like these.\n\n{shown}\n\nQ:", origin="generated")


def written_in(candidate: Candidate) -> str | None:
    """The first question of a text; None if it was cut off before its end."""
    text = candidate.text.strip().removeprefix("Q:").strip()
    first = END.split(text, maxsplit=1)[0].strip()
    return first if candidate.finish == "stop" or first != text else None


def _asked(prompt: Prompt, text: str) -> Prompt:
    chat = (*prompt.messages[:-1], ChatMessage(role="user", content=text))
    return as_prompt([message.model_dump() for message in chat], origin="generated")
