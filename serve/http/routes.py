"""Ratchet's own routes beside vLLM's: models, feedback, status, metrics, commands and the status page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from core.config import AccessConfig
from core.errors import RatchetError
from serve.http.body import parse_json, parse_object
from serve.http.errors import Refusal, refusal_for
from serve.http.feedback import parse
from serve.http.keys import Caller, require_admin
from serve.http.limits import read_body
from serve.http.page import page_routes

ONCE = b"x-ratchet-id"
"""Set by the gateway, and the same when it retries on another replica, so that feedback without an id counts once."""


class Control(Protocol):
    """The calls of the routes to the running system."""

    async def status(self) -> Mapping[str, object]: ...
    async def command(self, name: str, argument: object) -> Mapping[str, object]: ...
    async def overview(self) -> dict[str, object]: ...
    async def metrics(self) -> str: ...
    async def answered(self, responses: Sequence[dict[str, Any]]) -> None: ...
    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]: ...
    async def feedback_page(self, key: str, after: int, limit: int) -> dict[str, object]: ...


class OwnRoutes(Starlette):
    """ASGI app of these routes. Expects the `Caller` in `scope["caller"]`; every error has OpenAI's shape."""

    def __init__(
        self, models: Callable[[Caller], list[dict[str, Any]]], control: Control, access: AccessConfig
    ) -> None:
        """`models`: the cards of what `model` may be now, for this caller."""
        self._cards = models
        self._control = control
        self._max_bytes = access.max_body_bytes
        super().__init__(
            routes=[
                *page_routes(control.overview),
                Route("/v1/models", self._models),
                Route("/v1/feedback", self._feedback, methods=["POST"]),
                Route("/v1/feedback", self._feedback_page, methods=["GET"]),
                Route("/status", self._status),
                Route("/metrics", self._metrics),
                Route("/admin/{name}", self._command, methods=["POST"]),
            ],
            exception_handlers={Refusal: _refused, RatchetError: _refused, 404: _unknown, 405: _unknown},
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._cards(request.scope["caller"])})

    async def _feedback(self, request: Request) -> Response:
        caller = request.scope["caller"]
        said = parse(parse_json(await read_body(request.receive, self._max_bytes)))
        if once := header(request.scope, ONCE):
            said = [{"id": f"{once}-{place}", **each} for place, each in enumerate(said)]
        return JSONResponse({"results": await self._control.feedback(said, caller.key, caller.role == "admin")})

    async def _feedback_page(self, request: Request) -> Response:
        after, limit = _query_int(request, "after", 0), _query_int(request, "limit", 100)
        return JSONResponse(await self._control.feedback_page(request.scope["caller"].key, after, max(1, limit)))

    async def _status(self, request: Request) -> Response:
        require_admin(request.scope["caller"])
        return JSONResponse(await self._control.status())

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(await self._control.metrics(), media_type="text/plain; version=0.0.4")

    async def _command(self, request: Request) -> Response:
        require_admin(request.scope["caller"])
        fields = parse_object(await read_body(request.receive, self._max_bytes) or b"{}")
        return JSONResponse(await self._control.command(request.path_params["name"], fields.get("argument")))


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal | RatchetError)
    return refusal_for(error).response()


async def _unknown(request: Request, _: Exception) -> Response:
    return Refusal(404, f"no route {request.method} {request.url.path}", "not_found_error").response()


def header(scope: Scope, name: bytes) -> str:
    """The header's first value, or ""; `name` in lower case."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _query_int(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Refusal(400, f"{name}={text[:40]!r}, expected a number from 0", param=name)
    return int(text)
