"""Examples for tests, and what they learn."""

from typing import Any

from core.codec import pack_floats
from core.messages import BASE, Example
from methods.rows import continued

COMMON: dict[str, Any] = {"policy": BASE, "group_id": "g", "method": "m", "render_id": "r"}


def imitate(name: str, context_ids: bytes, completion_ids: bytes, **fields: Any) -> Example:
    return Example(**COMMON | {"id": name, "rows": (continued(context_ids, completion_ids),)} | fields)


def reinforce(
    name: str, context_ids: bytes, completion_ids: bytes, advantage: float, logprobs: bytes | None = None, **fields: Any
) -> Example:
    """Without `logprobs` they are -1 each."""
    behaviour = pack_floats([-1.0] * (len(completion_ids) // 4)) if logprobs is None else logprobs
    row = continued(context_ids, completion_ids, advantage=advantage, columns={"behaviour": behaviour})
    return Example(**COMMON | {"id": name, "rows": (row,)} | fields)


def prefer(name: str, context_ids: bytes, chosen_ids: bytes, rejected_ids: bytes, **fields: Any) -> Example:
    rows = (continued(context_ids, chosen_ids), continued(context_ids, rejected_ids))
    return Example(**COMMON | {"id": name, "rows": rows} | fields)


def completion(example: Example, place: int = 0) -> bytes:
    """The token ids of a row's last span, which is learned."""
    row = example.rows[place]
    return row.token_ids[len(row.token_ids) - 4 * row.spans[-1].tokens :]


def advantage(example: Example) -> float:
    return example.rows[0].spans[-1].advantage


def behaviour(example: Example) -> bytes:
    return example.rows[0].columns["behaviour"]
