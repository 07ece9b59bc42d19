"""One streamed answer of a fixed length, timed by the user who asked for it.

By aiohttp: on two cores many users of httpx take as much of the machine as the server that they time."""

import json
import time
from dataclasses import dataclass
from itertools import pairwise

import aiohttp

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


def asking(url: str) -> aiohttp.ClientSession:
    """Users of a server: as many connections as there are of them."""
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(120))


async def ask(client: aiohttp.ClientSession, model: str, question: str, tokens: int) -> Answered:
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
    started, at_s, last = time.monotonic(), list[float](), b"data: {}"
    async with client.post("/v1/chat/completions", json=body) as reply:
        if not reply.ok:
            raise Unavailable(f"status {reply.status}: {(await reply.text())[:300]}")
        async for line in reply.content:
            if line.startswith(b"data: {"):
                at_s.append(time.monotonic() - started)
                last = line
    made = (json.loads(last[6:]).get("usage") or {}).get("completion_tokens")
    if made != tokens:
        raise Unavailable(f"an answer of {made} tokens, expected {tokens}; its last event: {last[:300]!r}")
    spoken = at_s[1:-1]  # the first event names the role, the last one is about usage
    gaps_s = tuple(after - before for before, after in pairwise(spoken))
    return Answered(tokens, at_s[0], at_s[-1], gaps_s, reply.headers.get("x-policy-version", ""))
