"""The HTTP face of a replica: vLLM's own OpenAI app behind an allow-list, with the model name pinned at admission.

A client asks for `policy`; what vLLM sees is the version in the serve slot at that moment, `policy@v7`, so a request
keeps the version that admitted it whatever is promoted meanwhile. The header `x-policy-version` names it, and
`x-policy-replica` who answered.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import RatchetError
from core.messages import PolicyRef, Slots
from core.metrics import Metrics
from serve.answer import Answer
from serve.feedback import parse
from serve.front import ALLOWED
from serve.recorder import Recorder
from serve.refusal import Refusal, refusal_for
from serve.seats import Seats

ALIAS = "policy"
GENERATES = ("/v1/chat/completions", "/v1/completions")
ENGINE_PATHS = ALLOWED - {"/v1/models"}
ENGINE_FIELDS = frozenset(
    {
        "priority",
        "cache_salt",
        "request_id",
        "kv_transfer_params",
        "vllm_xargs",
        "chat_template",
        "chat_template_kwargs",
        "documents",
        "mm_processor_kwargs",
        "media_io_kwargs",
    }
)
"""Fields that steer the engine or reach other clients' state: dropped from every request."""
ONCE = b"x-ratchet-id"
"""Set by the gateway, the same when it asks another replica: feedback without an id is not counted twice by that."""
PIN = b"x-policy-version"
"""A conversation that goes on with the version that it began with says so by the header that named it."""
LEARN = b"x-ratchet-learn"
USER_PRIORITY = 0
BACKGROUND_PRIORITY = 10
MAX_BODY_BYTES = 4 * 2**20


class Control(Protocol):
    """What the routes ask of the running system."""

    async def status(self) -> dict[str, Any]: ...
    async def command(self, name: str, argument: Any) -> dict[str, Any]: ...
    async def metrics(self) -> str: ...
    async def answered(self, responses: Sequence[dict[str, Any]]) -> None: ...
    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]: ...
    async def feedback_page(self, key: str, after: int, limit: int) -> dict[str, Any]: ...


class Gateway:
    """ASGI app in front of vLLM's: allow-list, version pinning, seats, and Ratchet's own routes."""

    def __init__(
        self,
        engine_app: ASGIApp,
        slots: Callable[[], Slots],
        seats: Seats,
        control: Control,
        metrics: Metrics,
        replica: str,
        dying: Callable[[], bool] = lambda: False,
    ) -> None:
        """`dying`: this process is about to end, and what its engine's app still says is an error."""
        self._engine_app = engine_app
        self._slots = slots
        self._seats = seats
        self._own = own_routes(slots, control)
        self._metrics = metrics
        self._replica = replica
        self._dying = dying
        self.recorder = Recorder(control.answered)
        self.tokens = 0
        """Tokens that users got."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._own(scope, receive, send)
        try:
            await self._http(scope, receive, send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in GENERATES:
            fields = parse_object(await read_body(receive))
            ref, body = self._admit(fields, scope)
            answer = Answer(send, ref, self._replica, self._dying)
            with self._seats.user():
                await self._forward({**scope, "policy_version": str(ref)}, body, receive, answer, new_id(ref))
            self._record(fields, scope, ref, answer)
            self.tokens += answer.tokens
            self._metrics.count("tokens_total", answer.tokens, purpose="user")
            self._metrics.count("user_requests_total", status=f"{max(answer.status, 200) // 100}xx")
        elif path in ENGINE_PATHS:
            body = await read_body(receive) if scope["method"] == "POST" else b""
            await self._forward(scope, self._admit(parse_object(body), scope)[1] if body else body, receive, send)
        else:
            await self._own(scope, receive, send)

    def _admit(self, fields: Mapping[str, Any], scope: Scope) -> tuple[PolicyRef, bytes]:
        """Pin the version and drop what is not the client's to say. Raises: Refusal."""
        name, pinned = fields.get("model"), header(scope, PIN)
        if pinned and name in (None, ALIAS):
            name = f"{ALIAS}@v{pinned.removeprefix('v')}"
        ref = resolve_model(name, self._slots())
        kept = {name: value for name, value in fields.items() if name not in ENGINE_FIELDS}
        return ref, json.dumps({**kept, "model": str(ref), "priority": USER_PRIORITY}).encode()

    def _record(self, fields: Mapping[str, Any], scope: Scope, ref: PolicyRef, answer: Answer) -> None:
        """What was answered whole can be voted on."""
        heard = answer.heard
        if answer.status != 200 or not heard.id or not heard.texts:
            return
        self.recorder.add(
            {
                "id": heard.id,
                "messages": fields.get("messages"),
                "texts": [heard.texts.get(i, "") for i in range(max(heard.texts) + 1)],
                "start": {"version": ref.version},
                "end": {"version": ref.version},
                "learn": header(scope, LEARN) != "no",
            }
        )

    async def _forward(self, scope: Scope, body: bytes, receive: Receive, send: Send, id: str = "") -> None:
        dropped = (b"content-length", b"x-request-id")
        headers = [(k, v) for k, v in scope["headers"] if k not in dropped]
        headers.append((b"content-length", str(len(body)).encode()))
        if id:
            headers.append((b"x-request-id", id.encode()))  # becomes the answer's id
        await self._engine_app({**scope, "headers": headers}, _replaying(body, receive), send)


def new_id(ref: PolicyRef) -> str:
    """Of an answer: names its version, and cannot be guessed."""
    return f"v{ref.version}-{uuid.uuid4().hex}"


def header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def resolve_model(name: Any, slots: Slots) -> PolicyRef:
    """The version behind a model name. Raises: Refusal 404 with the names that would do."""
    if name is None or name == ALIAS:
        return slots.serve
    for ref in slots.promoted:
        if str(ref) == name:
            return ref
    names = ", ".join([ALIAS, *map(str, slots.promoted)])
    raise Refusal(404, f"The model `{name}` does not exist; available: {names}.", "not_found_error", "model")


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


async def read_body(receive: Receive) -> bytes:
    """Raises: Refusal 413 above the limit."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client left before its request was whole")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, f"the body is over {MAX_BODY_BYTES} bytes; send a shorter request")
        if not message.get("more_body", False):
            return bytes(body)


def own_routes(slots: Callable[[], Slots], control: Control) -> Starlette:
    async def models(_: Request) -> Response:
        names = [ALIAS, *map(str, slots().promoted)]
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "ratchet"} for name in names]
        return JSONResponse({"object": "list", "data": cards})

    async def status(_: Request) -> Response:
        try:
            return JSONResponse(await control.status())
        except RatchetError as error:
            raise refusal_for(error) from None

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(await control.metrics(), media_type="text/plain; version=0.0.4")

    async def command(request: Request) -> Response:
        name = request.path_params["name"]
        fields = parse_object(await request.body() or b"{}")
        try:
            return JSONResponse(await control.command(name, fields.get("argument")))
        except RatchetError as error:
            raise refusal_for(error) from None

    async def feedback(request: Request) -> Response:
        said = parse(parse_json(await read_body(request.receive)))
        if len(said) == 1 and (id := header(request.scope, ONCE)):
            said[0].setdefault("id", id)
        try:
            return JSONResponse({"results": await control.feedback(said, "", True)})
        except RatchetError as error:
            raise refusal_for(error) from None

    async def feedback_page(request: Request) -> Response:
        after, limit = (query_int(request, name, default) for name, default in (("after", 0), ("limit", 100)))
        try:
            return JSONResponse(await control.feedback_page("", after, max(1, limit)))
        except RatchetError as error:
            raise refusal_for(error) from None

    async def refuse(_: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        return refusal.response()

    async def unknown(request: Request, _: Exception) -> Response:
        return Refusal(404, f"no route {request.method} {request.url.path}", "not_found_error").response()

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/feedback", feedback, methods=["POST"]),
            Route("/v1/feedback", feedback_page, methods=["GET"]),
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/admin/{name}", command, methods=["POST"]),
        ],
        exception_handlers={Refusal: refuse, 404: unknown, 405: unknown},
    )


def _replaying(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """`receive` that gives the rewritten body once and then whatever the client does next."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
