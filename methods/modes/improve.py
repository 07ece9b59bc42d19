"""Self-improvement with a person's feedback, as PIT answers: the next answer from the question and the one before,
arXiv 2310.00898. Variant: PIT trains an improver; here the served version is asked for the better answer.
"""

from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, Policy, Progress
from methods.modes import reflect
from methods.recipes import Shared
from methods.samplers.iid import greedily
from methods.turns import replied

CARD = ModeCard("A better answer from your feedback", "arXiv 2310.00898", needs=("feedback",))
IMPROVE = "{feedback}\n\nWrite a better answer to the question. Give only the answer."
Settings = reflect.Settings


async def answer(
    shared: Shared, prompt: Prompt, policy: Policy, given: reflect.Settings, progress: Progress
) -> ModeAnswer:
    asked, earlier = reflect.criticised(prompt, given.answer)
    chat = replied(asked, earlier, IMPROVE.replace("{feedback}", given.feedback))
    (better,) = await policy.generate(chat, greedily(shared.sampler))
    return ModeAnswer.of(better)
