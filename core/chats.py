"""Brings a chat, as clients and files hold it, to roles and texts."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from core.errors import PromptError

_ROLES = {"developer": "system"}
"""OpenAI's newer name."""


def plain_chat(messages: Sequence[object]) -> list[dict[str, Any]]:
    """Messages with role and content only. Members without a value, as SDKs send them back (`refusal: null`,
    `annotations: []`) and as Arrow fills its structs, are left out. Parts of text are joined as vLLM joins them.

    Raises: PromptError for a message with anything that a text model does not read, such as a picture."""
    return [_plain(message) for message in messages]


def _plain(message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise PromptError(f"a chat message is an object with role and content, not {str(message)[:80]!r}")
    given = {
        name: value
        for name, value in _members(cast(object, message)).items()
        if name == "content" or not _is_empty(value)
    }
    if given.get("content") is None:
        given.pop("content", None)
    elif not isinstance(given["content"], str):
        given["content"] = _joined(given["content"])
    if isinstance(given.get("role"), str):
        given["role"] = _ROLES.get(given["role"], given["role"])
    return given


def _joined(content: object) -> str:
    if not isinstance(content, Sequence) or not content:
        raise PromptError(
            f"a message's content is a text or a list of parts of text, not {str(cast(object, content))[:80]!r}"
        )
    return "\n".join(_text(part) for part in cast(Sequence[object], content))


def _text(part: object) -> str:
    given = (
        {name: value for name, value in _members(cast(object, part)).items() if not _is_empty(value)}
        if isinstance(part, Mapping)
        else {}
    )
    text = given.get("text", "" if given == {"type": "text"} else None)
    if given.keys() - {"type", "text"} or given.get("type", "text") != "text" or not isinstance(text, str):
        kind = given.get("type", part)
        raise PromptError(
            f"a part of a message that is no text: {str(kind)[:80]!r}; only parts of type 'text' are read"
        )
    return text


def _members(value: object) -> dict[str, Any]:
    return dict(cast(Mapping[str, Any], value))


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, list | tuple | dict | str) and not value)
