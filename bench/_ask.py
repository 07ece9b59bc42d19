"""A client that requests one streamed answer of a fixed length and times it.

It uses aiohttp: on two cores many httpx clients use as much CPU time as the server that they measure."""

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
    """From the request to the first event, which vLLM sends with the first token."""
    total_s: float
    gaps_s: tuple[float, ...]
    """Times between consecutive tokens."""
    version: str
    """The version that Ratchet names in its header; empty for other servers."""


def open_session(url: str) -> aiohttp.ClientSession:
    """A client session without a limit on connections: each concurrent user has its own."""
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(120))


async def ask(client: aiohttp.ClientSession, model: str, question: str, tokens: int) -> Answered:
    """Raises: Unavailable unless the answer is complete and has exactly `tokens` tokens."""
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
        raise Unavailable(f"the answer has {made} tokens, expected {tokens}; its last event: {last[:300]!r}")
    token_at_s = at_s[1:-1]  # the first event has the role, the last one the usage
    gaps_s = tuple(after - before for before, after in pairwise(token_at_s))
    return Answered(tokens, at_s[0], at_s[-1], gaps_s, reply.headers.get("x-policy-version", ""))
