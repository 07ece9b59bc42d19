"""Chats that go on from a sampled answer: another turn, or more of the same answer. Its tokens stay as sampled."""

from core.codec import stable_id
from core.messages import Candidate, ChatMessage, Prompt


def then(prompt: Prompt, candidate: Candidate, text: str) -> Prompt:
    """The chat in which the candidate answered and the user says `text`."""
    said = ChatMessage(role="assistant", content=candidate.text), ChatMessage(role="user", content=text)
    return _extended(prompt, candidate, said, text)


def replied(prompt: Prompt, answer: str, text: str) -> Prompt:
    """The chat in which somebody answered with this text, and the user says `text`."""
    said = ChatMessage(role="assistant", content=answer), ChatMessage(role="user", content=text)
    name = stable_id("reply", prompt.id, answer, text)
    changed = {"id": name, "messages": (*prompt.messages, *said), "sampled_ids": b"", "root": prompt.root or prompt.id}
    return prompt.model_copy(update=changed)


def asking(prompt: Prompt, text: str) -> Prompt:
    """The chat with this text in place of its last message."""
    last = ChatMessage(role="user", content=text)
    name = stable_id("asking", prompt.id, text)
    return prompt.model_copy(update={"id": name, "messages": (*prompt.messages[:-1], last)})


def going_on(prompt: Prompt, candidate: Candidate) -> Prompt:
    """The chat in which the candidate's answer goes on where it ended."""
    messages = prompt.messages if prompt.new_messages else prompt.messages[:-1]
    before = prompt.messages[-1].content if not prompt.new_messages else ""
    said = ChatMessage(role="assistant", content=before + candidate.text)
    return _extended(prompt.model_copy(update={"messages": messages}), candidate, (said,), "")


def _extended(prompt: Prompt, candidate: Candidate, said: tuple[ChatMessage, ...], text: str) -> Prompt:
    return Prompt(
        id=stable_id("turn", prompt.id, candidate.id, text),
        messages=(*prompt.messages, *said),
        role=prompt.role,
        origin=prompt.origin,
        sampled_ids=candidate.context_ids + candidate.completion_ids,
        root=prompt.root or prompt.id,
    )
