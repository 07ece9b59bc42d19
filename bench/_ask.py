"""One streamed answer of a fixed length, timed by the user who asked for it."""

import json
import time
from dataclasses import dataclass
from itertools import pairwise

import httpx

from core.errors import Unavailable


@dataclass(frozen=True)
class Answered:
    tokens: int
    first_s: float
    """Until the first event, which vLLM sends with the first token."""
    total_s: float
    gaps_s: tuple[float, ...]
    """Between two tokens."""
    version: str
    """What Ratchet says made it; empty elsewhere."""


async def ask(client: httpx.AsyncClient, model: str, question: str, tokens: int) -> Answered:
    """Raises: Unavailable for any answer but a whole one of so many tokens."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, at_s, last = time.monotonic(), list[float](), "data: {}"
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if not reply.is_success:
            raise Unavailable(f"status {reply.status_code}: {(await reply.aread()).decode()[:300]}")
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                at_s.append(time.monotonic() - started)
                last = line
    made = (json.loads(last[6:]).get("usage") or {}).get("completion_tokens")
    if made != tokens:
        raise Unavailable(f"an answer of {made} tokens, expected {tokens}; its last event: {last[:300]}")
    spoken = at_s[1:-1]  # the first event names the role, the last one is about usage
    gaps_s = tuple(after - before for before, after in pairwise(spoken))
    return Answered(tokens, at_s[0], at_s[-1], gaps_s, reply.headers.get("x-policy-version", ""))
