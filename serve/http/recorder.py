"""Records answers for later feedback: reads their texts as they pass and sends them to the feedback actor in batches,
so that no user waits for it."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from core.errors import RatchetError

log = logging.getLogger("ratchet.recorder")
GATHER_S = 0.5
"""Longer means fewer calls and disk syncs on the processors that serve; feedback on a new answer may wait this long."""
BATCH = 256
MOST_WAITING = 16_384
"""Answers kept while the feedback actor is unavailable. Beyond that the oldest are lost."""
RETRY_S = 0.5


FORCING = frozenset(
    {
        "response_format",
        "structured_outputs",
        "logit_bias",
        "allowed_token_ids",
        "bad_words",
        "tools",
        "functions",
        "continue_final_message",
        "echo",
        "ignore_eos",
        "min_tokens",
        "truncate_prompt_tokens",
        "thinking_token_budget",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    }
)
"""Fields of a request by which the client says what the answer is made of."""
NOT_FORCED = (None, False, 0, [], {}, {"type": "text"})


class Transcript:
    """Id and texts of one answer, from its body or its server-sent events."""

    def __init__(self) -> None:
        self.id = ""
        self.texts: dict[int, str] = {}
        self.ended: dict[int, tuple[str | None, int | str | None]] = {}
        """Choice -> the reason for its end, and the string or token of `stop` that ended it."""
        self.whole = False
        """The answer was sent to its end. Until then `id` and `texts` are empty."""
        self._parts: list[bytes] = []

    def feed(self, body: bytes, streaming: bool, last: bool) -> None:
        """Take the next part of the body; `last`: it is the end."""
        self._parts.append(body)
        if last:
            self.whole = True
            body = b"".join(self._parts)
            events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")] if streaming else [body]
            try:  # parsed together: one by one they cost a twentieth of a replica's time
                for event in json.loads(b"[" + b",".join(events) + b"]"):
                    self._add(event)
            except (ValueError, KeyError, TypeError, AttributeError):  # an error, or an answer without texts
                return

    def _add(self, event: Any) -> None:
        self.id = self.id or str(event["id"])
        for choice in event["choices"]:
            part = choice.get("message") or choice.get("delta") or choice
            index = int(choice["index"])
            self.texts[index] = self.texts.get(index, "") + (part.get("content") or part.get("text") or "")
            if choice.get("finish_reason") is not None:
                self.ended[index] = choice["finish_reason"], choice.get("stop_reason")

    def fragments(self, request: Mapping[str, Any]) -> list[int]:
        """The choices that are no free and whole answers of the model: cut off, ended by the client's `stop`, or all of
        them, if the request forces what they say."""
        if any(value not in NOT_FORCED for name, value in request.items() if name in FORCING):
            return sorted(self.texts)
        return [index for index in sorted(self.texts) if self._is_cut(index, request.get("stop_token_ids"))]

    def _is_cut(self, index: int, stop_ids: Any) -> bool:
        reason, stop = self.ended.get(index, (None, None))
        # a number may also be one of the model's own end tokens
        by_client = isinstance(stop, str) or (isinstance(stop_ids, list) and stop in stop_ids)
        return reason != "stop" or by_client


class Recorder:
    """Sends answers in the background, and again until they are on disk."""

    def __init__(self, send: Callable[[Sequence[dict[str, Any]]], Awaitable[None]]) -> None:
        """`send` returns when the answers are on disk and raises RatchetError when it should be tried again."""
        self._send = send
        self._waiting: deque[dict[str, Any]] = deque(maxlen=MOST_WAITING)
        self._added = asyncio.Event()

    def add(self, response: dict[str, Any]) -> None:
        self._waiting.append(response)
        self._added.set()

    async def run(self) -> None:
        while True:
            await self._added.wait()
            await asyncio.sleep(GATHER_S)
            self._added.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    await self._send(batch)
                except RatchetError as error:
                    log.warning("answers are not recorded yet (%s)", error)
                    self._waiting.extendleft(reversed(batch))
                    await asyncio.sleep(RETRY_S)
