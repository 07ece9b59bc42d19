"""Removes private content from texts, by a function that the owner of the run provides."""

import importlib
from collections.abc import Callable
from typing import Any, cast

from core.chats import plain_chat
from core.errors import ConfigError, PromptError


def redactor(name: str | None) -> Callable[[str], str]:
    """The function named by `prompts.live.redact`. Raises: ConfigError if it cannot be imported."""
    if name is None:
        return lambda text: text
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"prompts.live.redact={name!r} cannot be imported ({error}); expected module:function"
        ) from None
    return found


def redacted(messages: object, redact: Callable[[str], str]) -> list[dict[str, Any]] | None:
    """A chat with every text redacted. None for anything but a chat of texts, which is not kept."""
    if not isinstance(messages, list):
        return None
    try:
        chat = plain_chat(cast(list[object], messages))
    except PromptError:
        return None
    if not all(isinstance(message.get("content"), str) for message in chat):
        return None
    return [{**message, "content": redact(message["content"])} for message in chat]
