"""Ratchet's own routes beside vLLM's: what there is to ask, feedback, status, metrics and commands."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from core.config import AccessConfig
from core.errors import RatchetError
from serve.http.errors import Refusal, refusal_for
from serve.http.feedback import parse
from serve.http.keys import require_admin
from serve.http.limits import read_body
from serve.http.page import page_routes

ONCE = b"x-ratchet-id"
"""Set by the gateway, the same when it asks another replica: feedback without an id is not counted twice by that."""


class Control(Protocol):
    """What the routes ask of the running system."""

    async def status(self) -> dict[str, Any]: ...
    async def command(self, name: str, argument: Any) -> dict[str, Any]: ...
    async def overview(self) -> dict[str, Any]: ...
    async def metrics(self) -> str: ...
    async def answered(self, responses: Sequence[dict[str, Any]]) -> None: ...
    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]: ...
    async def feedback_page(self, key: str, after: int, limit: int) -> dict[str, Any]: ...


def own_routes(names: Callable[[], list[str]], control: Control, access: AccessConfig) -> Starlette:
    async def models(_: Request) -> Response:
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "ratchet"} for name in names()]
        return JSONResponse({"object": "list", "data": cards})

    async def status(request: Request) -> Response:
        require_admin(request.scope["caller"])
        try:
            return JSONResponse(await control.status())
        except RatchetError as error:
            raise refusal_for(error) from None

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(await control.metrics(), media_type="text/plain; version=0.0.4")

    async def command(request: Request) -> Response:
        require_admin(request.scope["caller"])
        name = request.path_params["name"]
        fields = parse_object(await read_body(request.receive, access.max_body_bytes) or b"{}")
        try:
            return JSONResponse(await control.command(name, fields.get("argument")))
        except RatchetError as error:
            raise refusal_for(error) from None

    async def feedback(request: Request) -> Response:
        caller = request.scope["caller"]
        said = parse(parse_json(await read_body(request.receive, access.max_body_bytes)))
        if id := header(request.scope, ONCE):
            for place, each in enumerate(said):
                each.setdefault("id", f"{id}-{place}")
        try:
            return JSONResponse({"results": await control.feedback(said, caller.key, caller.role == "admin")})
        except RatchetError as error:
            raise refusal_for(error) from None

    async def feedback_page(request: Request) -> Response:
        after, limit = (query_int(request, name, default) for name, default in (("after", 0), ("limit", 100)))
        try:
            return JSONResponse(await control.feedback_page(request.scope["caller"].key, after, max(1, limit)))
        except RatchetError as error:
            raise refusal_for(error) from None

    async def refuse(_: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        return refusal.response()

    async def unknown(request: Request, _: Exception) -> Response:
        return Refusal(404, f"no route {request.method} {request.url.path}", "not_found_error").response()

    return Starlette(
        routes=[
            *page_routes(control.overview),
            Route("/v1/models", models),
            Route("/v1/feedback", feedback, methods=["POST"]),
            Route("/v1/feedback", feedback_page, methods=["GET"]),
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/admin/{name}", command, methods=["POST"]),
        ],
        exception_handlers={Refusal: refuse, 404: unknown, 405: unknown},
    )


def parse_json(body: bytes) -> Any:
    """Raises: Refusal 400."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None


def query_int(request: Request, name: str, default: int) -> int:
    """Raises: Refusal 400."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Refusal(400, f"{name}={text[:40]!r}, expected a number from 0", param=name)
    return int(text)


def parse_object(body: bytes) -> dict[str, Any]:
    """Raises: Refusal 400 for anything but a JSON object."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise Refusal(400, f"the body is a JSON {type(fields).__name__}, expected an object")
    return fields


def header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
