"""The status page at `/`, and the stream of server-sent events that it draws itself from.

    GET /          the page, and what it is made of (FILES)
    GET /events    event `state`: the parts of the overview that changed, the first time all of them
                   event `away`: why there is no overview now, in place of a state
                   a comment when there was nothing to say for HEARTBEAT_S

All viewers of one replica share one poll of the overview; while nobody looks, nobody asks.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.clock import Clock, SystemClock
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
    "/page-chat.js": ("page-chat.js", "text/javascript"),
    "/page-icon.svg": ("page-icon.svg", "image/svg+xml"),
}
"""What anybody may fetch: nothing in it tells of the run."""
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
EVERY_S = 1.0
HEARTBEAT_S = 10.0
STREAM_S = 12.0
"""A stream ends after so long and the page asks for the next: a replica that is to stop waits for its requests."""
OVERVIEW_WAIT_S = 5.0


def page_routes(overview: Overview, every_s: float = EVERY_S, stream_s: float = STREAM_S) -> list[Route]:
    """The page over what `overview` says: JSON by part, and `at`, seconds since the epoch when it was taken."""
    snapshots = Snapshots(overview, every_s, SystemClock())

    async def events(request: Request) -> Response:
        stream = Viewer(snapshots, every_s, stream_s).stream(request)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return [*(_file_route(path, *file) for path, file in FILES.items()), Route("/events", events)]


class Snapshots:
    """The overview as it was less than `every_s` ago. Whoever asks first polls; who comes meanwhile waits for it."""

    def __init__(self, overview: Overview, every_s: float, clock: Clock) -> None:
        self._overview = overview
        self._every_s = every_s
        self._clock = clock
        self._lock = asyncio.Lock()
        self._taken_at: float | None = None
        self._newest: dict[str, Any] | RatchetError = {}
        self.number = 0

    async def newest(self) -> dict[str, Any]:
        """Raises: RatchetError when nobody could say, which is shared too."""
        async with self._lock:
            if self._taken_at is None or self._clock.monotonic() - self._taken_at >= self._every_s:
                self._newest = await self._poll()
                self._taken_at = self._clock.monotonic()
                self.number += 1
        if isinstance(self._newest, RatchetError):
            raise self._newest
        return self._newest

    async def _poll(self) -> dict[str, Any] | RatchetError:
        try:
            async with asyncio.timeout(OVERVIEW_WAIT_S):
                return await self._overview()
        except TimeoutError:
            return Overdue(f"the console gave no overview within {OVERVIEW_WAIT_S:.0f} s; trying again")
        except RatchetError as error:
            return error


class Viewer:
    """One open stream: what it was told, and when."""

    def __init__(self, snapshots: Snapshots, every_s: float, stream_s: float) -> None:
        self._snapshots = snapshots
        self._every_s = every_s
        self._stream_s = stream_s
        self._told: dict[str, Any] = {}

    async def stream(self, request: Request) -> AsyncIterator[str]:
        clock = SystemClock()
        ends_at = clock.monotonic() + self._stream_s
        spoke_at = clock.monotonic()
        while not await request.is_disconnected():
            text = await self._news()
            if not text and clock.monotonic() - spoke_at + self._every_s > HEARTBEAT_S:
                text = ": nothing new\n\n"
            if text:
                spoke_at = clock.monotonic()
                yield text
            if clock.monotonic() + self._every_s > ends_at:
                return
            await asyncio.sleep(self._every_s)

    async def _news(self) -> str:
        """The next event, or nothing."""
        try:
            newest = await self._snapshots.newest()
        except RatchetError as error:
            self._told = {}
            return framed("away", self._snapshots.number, {"message": str(error)})
        changed = {name: part for name, part in newest.items() if name not in self._told or self._told[name] != part}
        self._told = newest
        if changed.keys() <= {"at"}:
            return ""
        return framed("state", self._snapshots.number, {**changed, "at": newest.get("at")})


def framed(event: str, id: int, body: dict[str, Any]) -> str:
    """One server-sent event; JSON has no line breaks of its own."""
    return f"event: {event}\nid: {id}\ndata: {json.dumps(body, separators=(',', ':'))}\n\n"


def _file_route(path: str, name: str, media_type: str) -> Route:
    body = (FOLDER / name).read_bytes()

    async def file(_: Request) -> Response:
        return Response(body, media_type=media_type, headers=HEADERS)

    return Route(path, file)
