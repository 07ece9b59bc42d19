"""The ASGI app of a replica: keys, limits and an allow-list in front of vLLM's own OpenAI app.

A client asks for `policy`. At admission the name becomes the version in the serve slot, `policy@v7`, so a request keeps
its version whatever is promoted meanwhile. The response headers `x-policy-version` and `x-policy-replica` name version
and replica. A client that sends `x-policy-version` back stays with that version.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.config import AccessConfig
from core.messages import PolicyRef, Slots
from core.metrics import Metrics
from core.protocols import Mode
from serve.engine.admission import Admission
from serve.engine.openai_app import ALLOWED
from serve.http import cors, limits
from serve.http.body import parse_object
from serve.http.errors import Refusal, in_utf_8
from serve.http.keys import LOCAL, Caller, Keys
from serve.http.modes import Modes, parse_model
from serve.http.page import FILES
from serve.http.recorder import Recorder, Transcript
from serve.http.response_tap import ResponseTap
from serve.http.routes import Control, OwnRoutes, header

ALIAS = "policy"
GENERATES = ("/v1/chat/completions", "/v1/completions")
ENGINE_PATHS = ALLOWED - {"/v1/models"}
OPEN_PATHS = frozenset(FILES) | {"/health"}
"""Paths that need no key: the health check and the page, which asks its user for a key."""
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
"""Fields that steer the engine or reach other clients' state. They are dropped from every request."""
DROPPED_HEADERS = (b"content-length", b"x-request-id", b"authorization")
"""Not passed to vLLM: the body changes, we make the ids, and the key stays here."""
PIN = b"x-policy-version"
LEARN = b"x-ratchet-learn"
YES = frozenset({"yes", "y", "true", "1", "on"})
USER_PRIORITY = 0
BACKGROUND_PRIORITY = 10


class Ingress:
    """Checks keys, origins and limits, then routes a request to vLLM's app, to a serving mode, or to `OwnRoutes`."""

    def __init__(
        self,
        engine_app: ASGIApp,
        slots: Callable[[], Slots],
        admission: Admission,
        control: Control,
        metrics: Metrics,
        replica: str,
        modes: Modes,
        access: AccessConfig | None = None,
        keys: Keys | None = None,
        dying: Callable[[], bool] = lambda: False,
    ) -> None:
        """`dying`: whether the engine is dead and this process about to end; answers are withheld then, so that the
        gateway tries another replica."""
        self._engine_app = engine_app
        self._slots = slots
        self._admission = admission
        self._access = access or AccessConfig()
        self._keys = keys or Keys()
        self._queue = limits.Queue(self._access)
        self._modes = modes
        self._own = OwnRoutes(lambda caller: cards(slots(), modes, caller), control, self._access)
        self._metrics = metrics
        self._replica = replica
        self._dying = dying
        self.recorder = Recorder(control.answered)
        self.tokens = 0
        """Generated for users so far."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._own(scope, receive, send)
        try:
            await self._http(scope, receive, send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], scope["headers"]
        cors.check(headers, self._access.allow_origins, keyless=not self._keys.held)
        caller = LOCAL if path in OPEN_PATHS else self._keys.caller(headers)
        scope = {**scope, "caller": caller}
        if path in GENERATES:
            with self._queue.place():  # before the body is read, so that it bounds memory too
                await self._generate(scope, receive, send, caller)
        elif path in ENGINE_PATHS:
            if scope["method"] == "HEAD":  # vLLM's routes have no HEAD; the server drops the body of the answer
                scope = {**scope, "method": "GET"}
            body = await limits.read_body(receive, self._access.max_body_bytes) if scope["method"] == "POST" else b""
            if body:
                fields = parse_object(body)
                body = _for_engine(fields, self._resolve(fields.get("model"), scope), caller)
            await self._forward(scope, body, receive, send)
        else:
            await self._own(scope, receive, send)

    async def _generate(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        body = await limits.read_body(receive, self._access.max_body_bytes)
        fields = limits.check(parse_object(body), self._access)
        name, mode = parse_model(fields.get("model"))
        ref = self._resolve(name, scope)
        tap = ResponseTap(send, ref, self._replica, self._dying)
        try:
            with self._admission.user():
                if mode is not None:
                    tap.tokens = await self._modes.answer(scope, receive, tap, _allowed(fields), mode, ref)
                else:
                    pinned = {**scope, "policy_version": str(ref)}
                    await self._forward(pinned, _for_engine(fields, ref, caller), receive, tap, new_id(ref))
        except Exception as error:  # vLLM's app raises the error again after it answered with a 500
            tap.status = error.status if isinstance(error, Refusal) else 500
            raise
        finally:
            self._count(tap, mode)
        if tap.status == 200 and (recorded := _recorded(fields, scope, ref, tap.transcript, caller)):
            self.recorder.add(recorded)

    def _count(self, tap: ResponseTap, mode: str | None) -> None:
        self.tokens += tap.tokens
        self._metrics.count("tokens_total", tap.tokens, purpose="user")
        self._metrics.count("user_requests_total", status=f"{max(tap.status, 200) // 100}xx")
        if tap.first_token_s is not None and mode is None:
            self._metrics.observe("first_token_seconds", tap.first_token_s)

    def _resolve(self, name: Any, scope: Scope) -> PolicyRef:
        """The version that answers: the pinned one, if the client sent its header. Raises: Refusal 404."""
        pinned = header(scope, PIN)
        if pinned and name in (None, ALIAS):
            name = f"{ALIAS}@v{pinned.removeprefix('v')}"
        return resolve_model(name, self._slots(), self._modes, scope["caller"])

    async def _forward(self, scope: Scope, body: bytes, receive: Receive, send: Send, id: str = "") -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in DROPPED_HEADERS]
        headers.append((b"content-length", str(len(body)).encode()))
        if id:
            headers.append((b"x-request-id", id.encode()))  # vLLM makes it the answer's id
        await self._engine_app({**scope, "headers": headers}, _replaying(body, receive), send)


def new_id(ref: PolicyRef) -> str:
    """Id of an answer. It names the version and cannot be guessed, because it lets its holder vote."""
    return f"v{ref.version}-{uuid.uuid4().hex}"


def versions(slots: Slots, caller: Caller) -> tuple[PolicyRef, ...]:
    """The versions that this caller may request by number: admins also those on trial."""
    return (*slots.promoted, *slots.trial) if caller.role == "admin" else slots.promoted


def names(slots: Slots, modes: Modes, caller: Caller) -> list[str]:
    """The values that `model` may have now."""
    return [ALIAS, *(f"{ALIAS}:{mode}" for mode in sorted(modes.modes)), *map(str, versions(slots, caller))]


def cards(slots: Slots, modes: Modes, caller: Caller) -> list[dict[str, Any]]:
    """`GET /v1/models`: OpenAI's fields, and of a serving mode what it does, needs and takes."""
    modal = {f"{ALIAS}:{name}": mode for name, mode in modes.modes.items()}
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "ratchet"}
        | (_about(modal[name]) if name in modal else {})
        for name in names(slots, modes, caller)
    ]


def _about(mode: Mode) -> dict[str, Any]:
    card = mode.card
    takes = list(mode.settings.model_fields)
    return {"title": card.title, "source": card.source, "measured": card.measured, "needs": card.needs, "takes": takes}


def resolve_model(name: Any, slots: Slots, modes: Modes, caller: Caller) -> PolicyRef:
    """The version behind a model name. Raises: Refusal 404 with the names that exist for this caller."""
    if name is None or name == ALIAS:
        return slots.serve
    for ref in versions(slots, caller):
        if str(ref) == name:
            return ref
    there = ", ".join(names(slots, modes, caller))
    raise Refusal(404, f"The model `{name}` does not exist; available: {there}.", "not_found_error", "model")


def _replaying(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that returns the rewritten body first and then the client's own messages."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return first.pop() if first else await receive()

    return receiving


def _allowed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ENGINE_FIELDS}


def _for_engine(fields: Mapping[str, Any], ref: PolicyRef, caller: Caller) -> bytes:
    """The body for vLLM: with the version as its model, and without the fields that clients may not set."""
    salt = {"cache_salt": caller.salt} if caller.salt else {}
    return json.dumps({**_allowed(fields), **salt, "model": str(ref), "priority": USER_PRIORITY}).encode()


def _recorded(
    fields: Mapping[str, Any], scope: Scope, ref: PolicyRef, transcript: Transcript, caller: Caller
) -> dict[str, Any] | None:
    """The answer as fields of `core.messages.Response`, or None for one that was cut off or has no text."""
    if not (transcript.whole and transcript.id and transcript.texts):
        return None
    user = fields.get("user")
    return {
        "id": transcript.id,
        "messages": fields.get("messages"),
        "texts": [transcript.texts.get(i, "") for i in range(max(transcript.texts) + 1)],
        "fragments": transcript.fragments(fields),
        "start": {"version": ref.version},
        "end": {"version": ref.version},
        "key": caller.key,
        "user": user if isinstance(user, str) and in_utf_8(user) == user else "",
        "learn": may_learn(scope),
    }


def may_learn(scope: Scope) -> bool:
    """Whether the client lets its chat be learned from: it sent no LEARN header, or only a known yes. Any other value
    is a refusal, as a client that says something means to refuse."""
    said = (value.decode("latin-1") for name, value in scope["headers"] if name == LEARN)
    return all(value.strip().lower() in YES for value in said)
