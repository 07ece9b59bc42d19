"""If-or-else prompting, arXiv 2402.12563: review an answer, keep it if confident, and decide between two that differ.

At temperature 0: an answer; a review that keeps or updates it; and only if the two answers differ, a third turn that
decides. An answer that cannot be read equals no other, so it leads to the third turn. Deviation: a last turn that
cannot be read does not replace one that can.
"""

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.election import last_readable
from methods.recipes import Shared
from methods.samplers.iid import greedily
from methods.scorers.majority import answer_of
from methods.turns import then

CARD = ModeCard("An answer that is kept if the model is confident, else updated", "arXiv 2402.12563")
REVIEW = "Review your answer. If you are very confident about it, keep it; else update it. Then state the answer again."
DECIDE = "You gave two different answers. Decide which one is right, and state it."
Settings = ModeSettings


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress) -> ModeAnswer:
    (first,) = await policy.generate(prompt, greedily(shared.sampler))
    progress.so_far(ModeAnswer.of(first))
    progress.aside(first.text)
    reviewing = then(prompt, first, REVIEW)
    (second,) = await policy.generate(reviewing, greedily(shared.sampler))
    progress.so_far(ModeAnswer.of(second))
    before, after = answer_of(first, shared.extract), answer_of(second, shared.extract)
    if before is not None and before == after:
        return ModeAnswer.of(second)
    progress.aside(second.text)
    (third,) = await policy.generate(then(reviewing, second, DECIDE), greedily(shared.sampler))
    return ModeAnswer.of(last_readable(shared, first, second, third))
