"""Renders chats, alike in engine and trainer: the fallback template, and a digest that shows whether they do so."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from core.codec import unpack_ids
from core.errors import PromptError
from core.messages import ChatMessage, Prompt

PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""For a model without a chat template: one message per line."""


def render_id(tokenizer_json: str, template: str) -> str:
    """Digest of the whole tokenizer (the content of `tokenizer.json`), the chat template and its arguments."""
    rendering = [tokenizer_json, template, {"add_generation_prompt": True}]
    return hashlib.sha256(json.dumps(rendering, sort_keys=True).encode()).hexdigest()[:16]


ANSWER = "0f1e2d3c4b"
"""Stands for an earlier answer, to see what a template puts behind it."""


def context_ids(tokenizer: Any, template: str, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, up to where its answer begins. What was sampled stays as it was sampled.

    Raises: PromptError for messages that the template refuses, and for a template that drops the earlier answer."""
    if not prompt.sampled_ids:
        return rendered(tokenizer, template, prompt.messages)
    sampled = unpack_ids(prompt.sampled_ids)
    ended = sampled[-1] == tokenizer.eos_token_id
    if not prompt.new_messages:
        return sampled[:-1] if ended else sampled
    behind = _behind_an_answer(tokenizer, template, prompt.new_messages)
    if not ended:
        return [*sampled, *behind]
    closes_itself = behind[:1] == [tokenizer.eos_token_id]
    return [*sampled, *behind[1:]] if closes_itself else [*sampled[:-1], *behind]


def _behind_an_answer(tokenizer: Any, template: str, messages: Sequence[ChatMessage]) -> list[int]:
    """What follows an answer's last word: the end of its turn, the messages, and the begin of the next answer."""
    before = [ChatMessage(role="user", content="?"), ChatMessage(role="assistant", content=ANSWER)]
    text = _applied(tokenizer, template, [*before, *messages], tokenize=False)
    _, there, behind = text.partition(ANSWER)
    if not there:
        raise PromptError(
            "the model's chat template drops the answer that is to be gone on from; use one that keeps earlier answers"
        )
    return list(tokenizer.encode(behind, add_special_tokens=False))


def rendered(tokenizer: Any, template: str, messages: Sequence[ChatMessage]) -> list[int]:
    """Token ids of the messages in the template, up to where the answer begins.

    Raises: PromptError with the template's own words, if it refuses the messages: many refuse two messages of the user
    in a row, or a system message."""
    return list(_applied(tokenizer, template, messages, tokenize=True))


def _applied(tokenizer: Any, template: str, messages: Sequence[ChatMessage], tokenize: bool) -> Any:
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return tokenizer.apply_chat_template(
            chat, chat_template=template, add_generation_prompt=True, tokenize=tokenize, return_dict=False
        )
    except Exception as error:  # a template is a program: it raises TemplateError, and whatever its expressions raise
        roles = ", ".join(message.role for message in messages)
        raise PromptError(
            f"the model's chat template refuses these messages ({roles}): {error or type(error).__name__}"
        ) from None
