"""Renders chats, alike in engine and trainer: the fallback template, and a digest that shows whether they do so."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from core.errors import PromptError
from core.messages import ChatMessage

PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""For a model without a chat template: one message per line."""


def render_id(tokenizer_json: str, template: str) -> str:
    """Digest of the whole tokenizer (the content of `tokenizer.json`), the chat template and its arguments."""
    rendering = [tokenizer_json, template, {"add_generation_prompt": True}]
    return hashlib.sha256(json.dumps(rendering, sort_keys=True).encode()).hexdigest()[:16]


def rendered(tokenizer: Any, template: str, messages: Sequence[ChatMessage]) -> list[int]:
    """Token ids of the messages in the template, up to where the answer begins.

    Raises: PromptError with the template's own words, if it refuses the messages: many refuse two messages of the user
    in a row, or a system message."""
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(
            chat, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except Exception as error:  # a template is a program: it raises TemplateError, and whatever its expressions raise
        roles = ", ".join(message.role for message in messages)
        raise PromptError(
            f"the model's chat template refuses these messages ({roles}): {error or type(error).__name__}"
        ) from None
    return list(ids)
