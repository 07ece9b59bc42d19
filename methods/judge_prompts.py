"""Prompts that ask the policy for a judgement, as data: their messages, and how to read what it says.

A judgement that cannot be read is None, and never a verdict. The wording is ours; the papers' prompts are longer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import ChatMessage, Prompt
from core.messages.model import JUDGE

Read = Callable[[str], float | None]


@dataclass(frozen=True)
class JudgePrompt:
    """`messages` hold placeholders such as {question} and {answer}."""

    name: str
    messages: tuple[ChatMessage, ...]
    read: Read
    """The number that a judgement states, or None if it is malformed."""

    def about(self, prompt: Prompt, **texts: str) -> Prompt:
        """The prompt that asks for a judgement of these texts. Its id says what is judged: equal texts share it."""
        filling = {"question": question(prompt), **texts}
        messages = tuple(m.model_copy(update={"content": _filled(m.content, filling)}) for m in self.messages)
        name = stable_id(JUDGE, self.name, prompt.id, *(part for pair in texts.items() for part in pair))
        return Prompt(id=name, messages=messages, role=JUDGE, origin="generated")


def question(prompt: Prompt) -> str:
    """A chat as one text: a single message as it is, several with the names of those who speak."""
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)


def points(low: int, high: int, unit: float = 1.0) -> Read:
    """Reads the last `Score: x`, a number from `low` to `high`, divided by `unit`."""
    form = re.compile(rf"\bscore[\s:=*<(\[]{{1,6}}(-?\d+(?:\.\d+)?)(?:\s*/\s*{high})?(?!\s*/|\w|\.\d)", re.IGNORECASE)

    def read(text: str) -> float | None:
        found = form.findall(text)
        value = float(found[-1]) if found else None
        return value / unit if value is not None and low <= value <= high else None

    return read


def word(label: str, yes: str, no: str) -> Read:
    """Reads the last `label: yes` as 1, the last `label: no` as 0."""
    form = re.compile(rf"\b{label}[\s:=*<(\[]{{1,6}}({yes}|{no})\b", re.IGNORECASE)

    def read(text: str) -> float | None:
        found = form.findall(text)
        return float(found[-1].casefold() == yes.casefold()) if found else None

    return read


def _filled(text: str, filling: dict[str, str]) -> str:
    """In one pass, so that a placeholder inside an answer stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda found: filling[found[1]], text)


def _user(text: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role="user", content=text),)


_SHOWN = "Question:\n{question}\n\nAnswer:\n{answer}\n\n"
_TWO = "Question:\n{question}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
RUBRIC = JudgePrompt(
    "rubric",
    _user(
        "Review the answer below. It earns up to five points, one for each of these, and they add up: "
        "it says something relevant to the question; it deals with a large part of the question; it answers the "
        "essential parts usefully; it is clear, complete and written for the person who asked; it could hardly be "
        "better.\n\n" + _SHOWN + "First give your reasons in at most three sentences. Then end with the line\n"
        "Score: <points from 0 to 5>"
    ),
    points(0, 5),
)
"""The additive rubric of five points of Self-Rewarding, arXiv 2401.10020."""
SCORE = JudgePrompt(
    "score",
    _user(
        "How good is this answer, from 1 (wrong) to 10 (right, and shown to be so)?\n\n"
        + _SHOWN
        + "Think step by step, then end with the line\nScore: <1 to 10>"
    ),
    points(1, 10, unit=10),
)
BINARY = JudgePrompt(
    "binary",
    _user(
        "Is this answer right?\n\n"
        + _SHOWN
        + "Check it step by step, then end with the line\nVerdict: yes\nor with the line\nVerdict: no"
    ),
    word("verdict", "yes", "no"),
)
CORRECT = JudgePrompt(
    "correct",
    _user("Is this answer right? Reply with one word, Correct or Incorrect.\n\n" + _SHOWN),
    word("answer", "correct", "incorrect"),
)
"""To be read by probability: `Correct` against `Incorrect`."""
FINISHED = JudgePrompt(
    "finished",
    _user("Does this answer need no further improvement? Reply with one word, Yes or No.\n\n" + _SHOWN),
    word("answer", "yes", "no"),
)
"""To be read by probability: `Yes` against `No`."""
PAIR = JudgePrompt(
    "pair",
    _user(
        "Which of two answers is better?\n\n"
        + _TWO
        + "Compare them step by step, then end with the line\nWinner: A\nor with the line\nWinner: B"
    ),
    word("winner", "a", "b"),
)
META = JudgePrompt(
    "meta",
    _user(
        "Two judges were given the same task. Whose judgement follows its rules better, and is better argued?\n\n"
        "Task:\n{question}\n\nJudgement A:\n{first}\n\nJudgement B:\n{second}\n\n"
        "Compare them step by step, then end with the line\nWinner: A\nor with the line\nWinner: B"
    ),
    word("winner", "a", "b"),
)
