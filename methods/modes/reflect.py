"""Self-reflection after a person's feedback, arXiv 2405.06682: why was the answer wrong, then a new answer.

Without feedback from outside there is nothing to reflect on, so a request must have some. Deviation: the paper reflects
on every answer that its key calls wrong, and shows the key; here a person says what is wrong, and no key exists.
"""

from pydantic import Field

from core.errors import PromptError
from core.messages import Prompt
from core.protocols import ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.recipes import Shared
from methods.samplers.iid import greedily
from methods.turns import replied, then

CARD = ModeCard("A new answer after reflecting on your feedback", "arXiv 2405.06682", needs=("feedback",))
REFLECT = (
    "This answer is not right: {feedback}\n\nReflect on it: where did it go wrong, and how should the question be "
    "answered? Do not answer the question yet."
)
AGAIN = "Now answer the question again, with this in mind."


class Settings(ModeSettings):
    feedback: str = Field(min_length=1)
    """What a person says about the answer."""
    answer: str | None = None
    """The answer that it is about. None: the chat's last message, which is the assistant's."""


async def answer(shared: Shared, prompt: Prompt, policy: Policy, given: Settings, progress: Progress) -> ModeAnswer:
    asked, earlier = criticised(prompt, given.answer)
    chat = replied(asked, earlier, REFLECT.replace("{feedback}", given.feedback))
    (reflection,) = await policy.generate(chat, greedily(shared.sampler))
    progress.aside(reflection.text)
    (again,) = await policy.generate(then(chat, reflection, AGAIN), greedily(shared.sampler))
    return ModeAnswer.of(again)


def criticised(prompt: Prompt, text: str | None) -> tuple[Prompt, str]:
    """The chat before the answer that a person criticised, and that answer. Raises: PromptError without an answer."""
    *before, last = prompt.messages
    if text is None and last.role == "assistant" and before:
        return prompt.model_copy(update={"messages": tuple(before)}), last.content
    if text is None:
        raise PromptError("there is no answer to improve: end the chat with the assistant's message, or set `answer`")
    return prompt, text
