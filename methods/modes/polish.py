"""Self-Polish, arXiv 2305.14497: rewrite the question more clearly, until two answers in a row agree.

A rewrite that loses a number of the question is not answered; it uses up one rewrite. Answers that cannot be read agree
with none. Without agreement the answer to the original question is given.
"""

import re

from pydantic import Field

from core.messages import Candidate, Prompt
from core.protocols import Card, ModeAnswer, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import greedy
from methods.scorers.majority import answer_of
from methods.turns import asking

CARD = Card("The answer on which rewordings of the question agree", "arXiv 2305.14497")
REWRITE = (
    "Rewrite the question below so that it is clearer and easier to answer. Keep every number and every condition, and "
    "do not answer it. Reply with the question alone.\n\n{question}"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Settings(ModeSettings):
    rewrites: int = Field(default=3, ge=1, le=8)


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    text = prompt.messages[-1].content
    (original,) = await policy.generate(prompt, greedy(shared.sampler))
    progress.so_far(_given(original))
    last = answer_of(original, shared.extract)
    for _ in range(given.rewrites):
        (rewrite,) = await policy.generate(asking(prompt, REWRITE.replace("{question}", text)), greedy(shared.sampler))
        progress.aside(rewrite.text)
        if rewrite.finish != "stop" or sorted(NUMBER.findall(rewrite.text)) != sorted(NUMBER.findall(text)):
            continue
        text = rewrite.text
        (next_one,) = await policy.generate(asking(prompt, text), greedy(shared.sampler))
        said = answer_of(next_one, shared.extract)
        if said is not None and said == last:
            return _given(next_one)
        last = said
    return _given(original)


def _given(candidate: Candidate) -> ModeAnswer:
    return ModeAnswer(candidate.text, candidate.finish)
