"""The answer of a serving mode in OpenAI's shapes: one body, or the events of a stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.protocols import ModeAnswer


@dataclass(frozen=True)
class Completion:
    id: str
    created_s: int
    model: str
    versions: str
    """`policy@v3`, or `policy@v3..v4` when the model was swapped under it."""
    said: ModeAnswer
    asked: int
    """Continuations that were sampled for it."""
    prompt_tokens: int
    completion_tokens: int
    """Of all of them, the hidden ones too."""

    @property
    def share(self) -> float:
        return round(self.said.share, 4)

    def body(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.said.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.said.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(), "vote": self._vote()}

    def stream(self, with_usage: bool) -> str:
        """The whole stream: nothing can be said before the vote is over, so it comes at once."""
        events = self._events(with_usage)
        return "".join(f"data: {event}\n\n" for event in [*map(json.dumps, events), "[DONE]"])

    def _events(self, with_usage: bool) -> Iterator[dict[str, Any]]:
        head = {**self._head("chat.completion.chunk"), **({"usage": None} if with_usage else {})}
        yield {**head, "choices": [_delta({"role": "assistant", "content": ""})]}
        yield {**head, "choices": [_delta({"content": self.said.text})]}
        yield {**head, "choices": [_delta({}, self.said.finish)], "vote": self._vote()}
        if with_usage:
            yield {**head, "choices": [], "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        named = {"model": self.model, "system_fingerprint": self.versions}
        return {"id": self.id, "object": kind, "created": self.created_s, **named}

    def _usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }

    def _vote(self) -> dict[str, Any]:
        return {"share": self.share, "asked": self.asked}


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
