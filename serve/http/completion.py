"""The answer of a serving mode in OpenAI's format: one body, or the events of a stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.protocols import ModeAnswer
from serve.http.pinned_policy import PinnedPolicy


@dataclass(frozen=True)
class Completion:
    id: str
    created_s: int
    model: str
    policy: PinnedPolicy
    """The policy that is asked; it counts tokens and samples."""
    with_usage: bool = False
    """End the stream with the usage."""

    def body(self, answer: ModeAnswer, asides: Sequence[str], spent: str) -> dict[str, Any]:
        """`asides`: hidden work to show. `spent`: why the work ended before its end, if it did."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if asides:
            message["reasoning_content"] = "\n\n".join(asides)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        told = {"usage": self._usage(), "vote": self._vote(answer, spent)}
        return {**self._head("chat.completion"), "choices": [choice], **told}

    def opening(self) -> str:
        return self._event({"choices": [_delta({"role": "assistant", "content": ""})]})

    def aside(self, text: str) -> str:
        """Hidden work, with a blank line to the next."""
        return self._event({"choices": [_delta({"reasoning_content": f"{text}\n\n"})]})

    def closing(self, answer: ModeAnswer, spent: str) -> str:
        events = [
            self._event({"choices": [_delta({"content": answer.text})]}),
            self._event({"choices": [_delta({}, answer.finish)], "vote": self._vote(answer, spent)}),
            *([self._event({"choices": [], "usage": self._usage()})] if self.with_usage else []),
        ]
        return "".join((*events, "data: [DONE]\n\n"))

    def _event(self, fields: dict[str, Any]) -> str:
        usage = {"usage": None} if self.with_usage else {}
        return f"data: {json.dumps({**self._head('chat.completion.chunk'), **usage, **fields})}\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        version = {"model": self.model, "system_fingerprint": self.policy.versions}
        return {"id": self.id, "object": kind, "created": self.created_s, **version}

    def _usage(self) -> dict[str, int]:
        prompt, completion = self.policy.prompt_tokens, self.policy.tokens.total()
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def _vote(self, answer: ModeAnswer, spent: str) -> dict[str, Any]:
        least = {} if answer.least_share is None else {"least_share": _rounded(answer.least_share)}
        ended = {"budget_spent": spent} if spent else {}
        return {"share": _rounded(answer.share), **least, "asked": self.policy.asked, **ended}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def _delta(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
