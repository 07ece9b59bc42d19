"""The answer of a serving mode in OpenAI's format: one body, or the events of a stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.protocols import ModeAnswer
from serve.http.pinned_policy import PinnedPolicy


@dataclass(frozen=True)
class Completion:
    id: str
    created_s: int
    model: str
    answer: ModeAnswer
    policy: PinnedPolicy
    """The policy that was asked; it has counted tokens and samples."""

    @property
    def share(self) -> float:
        return round(self.answer.share, 4)

    def body(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.answer.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(), "vote": self._vote()}

    def stream(self, with_usage: bool) -> str:
        """All events at once: there is no text before the vote is over."""
        events = self._events(with_usage)
        return "".join(f"data: {event}\n\n" for event in [*map(json.dumps, events), "[DONE]"])

    def _events(self, with_usage: bool) -> Iterator[dict[str, Any]]:
        head = {**self._head("chat.completion.chunk"), **({"usage": None} if with_usage else {})}
        yield {**head, "choices": [_delta({"role": "assistant", "content": ""})]}
        yield {**head, "choices": [_delta({"content": self.answer.text})]}
        yield {**head, "choices": [_delta({}, self.answer.finish)], "vote": self._vote()}
        if with_usage:
            yield {**head, "choices": [], "usage": self._usage()}

    def _head(self, kind: str) -> dict[str, Any]:
        version = {"model": self.model, "system_fingerprint": self.policy.versions}
        return {"id": self.id, "object": kind, "created": self.created_s, **version}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self.policy.prompt_tokens, self.policy.tokens.total()
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _vote(self) -> dict[str, Any]:
        return {"share": self.share, "asked": self.policy.asked}


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
