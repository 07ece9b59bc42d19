"""Builds the events of a streamed chat in a twentieth of the time.

vLLM builds each event from three pydantic models, validates them and encodes JSON: 14 us per token, an eighth of a
replica's time with a small model. Nearly all events only carry text. Here those are plain structs with the same JSON
(tests/real/serve/engine/test_stream_events.py). vLLM still builds the others, with tool calls or usage.

Patched: `DeltaMessage`, `ChatCompletionResponseStreamChoice` and `ChatCompletionStreamResponse` in vLLM's chat route
(vllm/entrypoints/openai/chat_completion/serving.py). Upstream: no issue is known. Holds for: vLLM 0.31.
"""

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct
from msgspec.json import Encoder

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("stream_events", without="each streamed token costs its replica 14 us more")
MADE = ("ChatCompletionResponseStreamChoice", "ChatCompletionStreamResponse")
"""The classes that vLLM's chat route instantiates for each event."""
Unset = Any


class Delta(Struct):
    role: Unset = UNSET
    content: Unset = UNSET


class Choice(Struct):
    index: int
    delta: Delta
    logprobs: Unset = UNSET
    finish_reason: Unset = UNSET
    stop_reason: Unset = UNSET
    token_ids: Unset = UNSET


class Chunk(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Unset = UNSET
    system_fingerprint: Unset = UNSET
    prompt_token_ids: Unset = UNSET
    prompt_text: Unset = UNSET

    def model_dump_json(self, *, exclude_unset: Literal[True]) -> str:
        return _encode(self).decode()


_encode = Encoder(enc_hook=lambda model: Raw(model.model_dump_json(exclude_unset=True).encode())).encode


def install() -> None:
    """Patch vLLM's chat route in this process, permanently. Idempotent."""
    if not PATCH.on():
        return
    from vllm.entrypoints.openai.chat_completion import serving

    choice, chunk = (getattr(serving, name) for name in MADE)
    if isinstance(choice, type):
        for name, value in zip(("DeltaMessage", *MADE), (Delta, *makers(choice, chunk)), strict=True):
            setattr(serving, name, value)


def makers(vllm_choice: type, vllm_chunk: type) -> tuple[Any, Any]:
    """Factories of choices and chunks: our structs for events with only text, vLLM's classes for the others."""

    def choice(*, delta: Any, **fields: Any) -> Any:
        return (Choice if type(delta) is Delta else vllm_choice)(delta=delta, **fields)

    def chunk(*, choices: list[Any], **fields: Any) -> Any:
        return (Chunk if choices and type(choices[0]) is Choice else vllm_chunk)(choices=choices, **fields)

    return choice, chunk
