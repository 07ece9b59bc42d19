"""Self-Refine, arXiv 2303.17651: feedback on its own answer and a new one, until it finds nothing to mend.

The control for every mode that reviews. Without help from outside such reviews do not make reasoning better (arXiv
2310.01798), so it is off unless serve.modes.off says otherwise. The answer is the last one, also where the review
stops. A review without a verdict that can be read leaves the answer as it stands, and an answer that cannot be
read replaces none that can.
"""

import re

from pydantic import Field

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.election import last_readable
from methods.recipes import Shared
from methods.samplers.iid import greedily
from methods.turns import then

CARD = ModeCard("An answer that the model reviews and writes again (the control)", "arXiv 2303.17651")
REVIEW = "Is this answer right? Check it, then end with the line\nVerdict: right\nor with the line\nVerdict: wrong"
AGAIN = "Answer the question again, without these faults."
VERDICT = re.compile(r"\bverdict[\s:=*(\[]{1,6}(right|wrong)\b", re.IGNORECASE)


class Settings(ModeSettings):
    rounds: int = Field(default=4, ge=1, le=8)


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    chat = prompt
    (said,) = await policy.generate(chat, greedily(shared.sampler))
    turns = [said]
    for _ in range(given.rounds):
        progress.so_far(ModeAnswer.of(said))
        progress.aside(said.text)
        reviewing = then(chat, said, REVIEW)
        (review,) = await policy.generate(reviewing, greedily(shared.sampler))
        progress.aside(review.text)
        found = VERDICT.findall(review.text)
        if not found or found[-1].casefold() == "right":
            break
        chat = then(reviewing, review, AGAIN)
        (said,) = await policy.generate(chat, greedily(shared.sampler))
        turns.append(said)
    return ModeAnswer.of(last_readable(shared, *turns))
