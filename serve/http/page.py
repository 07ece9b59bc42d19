"""The status page at `/`, and the server-sent events that it shows.

    GET /          the page and its files (FILES)
    GET /events    event `state`: the parts of the overview that changed; the first event has all parts
                   event `away`: the reason why there is no overview now
                   a comment after HEARTBEAT_S without an event

All viewers of one replica share one poll of the overview. Without viewers nothing is polled.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.errors import Overdue, RatchetError

Overview = Callable[[], Awaitable[dict[str, Any]]]

FOLDER = Path(__file__).with_name("static")
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page-draw.js": ("page-draw.js", "text/javascript"),
    "/page-stream.js": ("page-stream.js", "text/javascript"),
    "/page-curve.js": ("page-curve.js", "text/javascript"),
    "/page-monitors.js": ("page-monitors.js", "text/javascript"),
    "/page-chat.js": ("page-chat.js", "text/javascript"),
    "/page-icon.svg": ("page-icon.svg", "image/svg+xml"),
}
"""Path -> file and media type. They need no key, because they contain nothing about the run."""
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
EVERY_S = 1.0
HEARTBEAT_S = 10.0
STREAM_S = 12.0
"""A stream ends after this time and the page opens the next, because a replica that stops waits for its requests."""
OVERVIEW_WAIT_S = 5.0


def page_routes(overview: Overview, every_s: float = EVERY_S, stream_s: float = STREAM_S) -> list[Route]:
    """`overview` returns JSON by part, and `at`: when it was taken, in seconds since the epoch."""
    files = [
        Route(path, Response((FOLDER / name).read_bytes(), headers=HEADERS, media_type=kind), methods=["GET"])
        for path, (name, kind) in FILES.items()
    ]
    return [*files, Route("/events", Events(overview, every_s, stream_s).respond)]


class Events:
    """`GET /events`. The overview is at most `every_s` old: the first viewer polls it, the others share the result."""

    def __init__(self, overview: Overview, every_s: float, stream_s: float) -> None:
        self._overview = overview
        self._every_s = every_s
        self._stream_s = stream_s
        self._lock = asyncio.Lock()
        self._taken_at = -math.inf
        self._newest: dict[str, Any] | RatchetError = {}
        self._number = 0

    async def respond(self, request: Request) -> Response:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        return StreamingResponse(self._stream(request), media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request) -> AsyncIterator[str]:
        began_at = sent_at = time.monotonic()
        sent: dict[str, Any] = {}
        while not await request.is_disconnected():
            text, sent = self._event(await self._poll(), sent)
            if not text and time.monotonic() - sent_at + self._every_s > HEARTBEAT_S:
                text = ": nothing new\n\n"
            if text:
                sent_at = time.monotonic()
                yield text
            if time.monotonic() + self._every_s > began_at + self._stream_s:
                return
            await asyncio.sleep(self._every_s)

    async def _poll(self) -> dict[str, Any] | RatchetError:
        """The overview, or the error that stands in its place; all viewers get the same."""
        async with self._lock:
            if time.monotonic() - self._taken_at >= self._every_s:
                try:
                    async with asyncio.timeout(OVERVIEW_WAIT_S):
                        self._newest = await self._overview()
                except TimeoutError:
                    why = f"no overview of the run within {OVERVIEW_WAIT_S:.0f} s; trying again"
                    self._newest = Overdue(why)
                except RatchetError as error:
                    self._newest = error
                self._taken_at = time.monotonic()
                self._number += 1
            return self._newest

    def _event(self, newest: dict[str, Any] | RatchetError, sent: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The next event of a stream that was sent the parts `sent`, or "" when nothing changed; and its parts now."""
        if isinstance(newest, RatchetError):
            return framed("away", self._number, {"message": str(newest)}), {}
        changed = {name: part for name, part in newest.items() if name not in sent or sent[name] != part}
        if changed.keys() <= {"at"}:
            return "", newest
        return framed("state", self._number, {**changed, "at": newest.get("at")}), newest


def framed(event: str, id: int, body: dict[str, Any]) -> str:
    """One server-sent event on a single `data` line: JSON escapes line breaks."""
    return f"event: {event}\nid: {id}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"
