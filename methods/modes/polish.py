"""Self-Polish, arXiv 2305.14497: rewrite the question more clearly, until two answers in a row agree.

A rewrite that loses a number of the question is not answered; it uses up one rewrite. Answers that cannot be read agree
with none. Without agreement the answer to the original question is given.
"""

import re

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import greedily
from methods.scorers.majority import answer_of
from methods.turns import asking

CARD = ModeCard("The answer on which rewordings of the question agree", "arXiv 2305.14497")
REWRITE = (
    "Rewrite the question below so that it is clearer and easier to answer. Keep every number and every condition, and "
    "do not answer it. Reply with the question alone.\n\n{question}"
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def keeps_its_numbers(rewrite: str, question: str) -> bool:
    return sorted(NUMBER.findall(rewrite)) == sorted(NUMBER.findall(question))


class Settings(ModeSettings):
    rewrites: int = Field(default=3, ge=1, le=8)


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    text = prompt.messages[-1].content
    (original,) = await policy.generate(prompt, greedily(shared.sampler))
    progress.so_far(ModeAnswer.of(original))
    last = answer_of(original, shared.extract)
    for _ in range(given.rewrites):
        (rewrite,) = await policy.generate(
            asking(prompt, REWRITE.replace("{question}", text)), greedily(shared.sampler)
        )
        progress.aside(rewrite.text)
        if rewrite.finish != "stop" or not keeps_its_numbers(rewrite.text, text):
            continue
        text = rewrite.text
        (next_one,) = await policy.generate(asking(prompt, text), greedily(shared.sampler))
        said = answer_of(next_one, shared.extract)
        if said is not None and said == last:
            return ModeAnswer.of(next_one)
        last = said
    return ModeAnswer.of(original)
