"""The evidence in a prompt: what its last user message says before the last question."""

import re
from dataclasses import dataclass

from core.answers import folded
from core.messages import Prompt

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Divided:
    """A prompt in two parts."""

    evidence: frozenset[str]
    """Its words, without those of the question."""
    question: str


def divided(prompt: Prompt) -> Divided | None:
    """The sentences before the last one that ends with `?`, and the rest. None if there is no such sentence, or if
    nothing before it has a word of its own."""
    place = _asked(prompt)
    sentences = [] if place is None else [s for s in _SENTENCE_END.split(prompt.messages[place].content) if s.strip()]
    last = max((at for at, sentence in enumerate(sentences) if sentence.rstrip().endswith("?")), default=0)
    question = " ".join(sentences[last:])
    own = words(" ".join(sentences[:last])) - words(question)
    return Divided(own, question) if own else None


def blinded(prompt: Prompt, question: str) -> Prompt:
    """The prompt with only this in its last user message."""
    messages, place = list(prompt.messages), _asked(prompt)
    assert place is not None, "a divided prompt has a user message"
    messages[place] = messages[place].model_copy(update={"content": question})
    return prompt.model_copy(update={"messages": tuple(messages)})


def overlap(text: str, evidence: frozenset[str]) -> float:
    """The part of the evidence's words that the text has."""
    return len(evidence & words(text)) / len(evidence)


def words(text: str) -> frozenset[str]:
    return frozenset(folded(text).split())


def _asked(prompt: Prompt) -> int | None:
    return max((at for at, message in enumerate(prompt.messages) if message.role == "user"), default=None)
