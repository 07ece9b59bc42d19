"""The HTTP face of a replica: vLLM's own OpenAI app behind an allow-list, with the model name pinned at admission.

A client asks for `policy`; what vLLM sees is the version in the serve slot at that moment, `policy@v7`, so a request
keeps the version that admitted it whatever is promoted meanwhile. The header `x-policy-version` names it, and
`x-policy-replica` who answered. Sent back, that header goes on with the version that a conversation began with.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.config import AccessConfig
from core.messages import PolicyRef, Slots
from core.metrics import Metrics
from serve.engine.admission import Admission
from serve.engine.openai_app import ALLOWED
from serve.http import cors, limits
from serve.http.errors import Refusal
from serve.http.feedback import is_text
from serve.http.keys import LOCAL, Caller, Keys
from serve.http.modes import Modes, parse_model
from serve.http.page import FILES
from serve.http.recorder import Recorder
from serve.http.response_tap import ResponseTap
from serve.http.routes import Control, header, own_routes, parse_object

ALIAS = "policy"
GENERATES = ("/v1/chat/completions", "/v1/completions")
ENGINE_PATHS = ALLOWED - {"/v1/models"}
OPEN_PATHS = frozenset(FILES) | {"/health"}
"""Need no key: whether it lives, and the page, which asks for one."""
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
NOT_THE_ENGINES = (b"content-length", b"x-request-id", b"authorization")
"""Headers that end here: the body is another, ids are ours, and secrets are nobody else's."""
PIN = b"x-policy-version"
LEARN = b"x-ratchet-learn"
USER_PRIORITY = 0
BACKGROUND_PRIORITY = 10


class Ingress:
    """ASGI app in front of vLLM's: keys, limits, allow-list, version pinning, seats, and Ratchet's own routes."""

    def __init__(
        self,
        engine_app: ASGIApp,
        slots: Callable[[], Slots],
        seats: Admission,
        control: Control,
        metrics: Metrics,
        replica: str,
        modes: Modes,
        access: AccessConfig | None = None,
        keys: Keys | None = None,
        dying: Callable[[], bool] = lambda: False,
    ) -> None:
        """`dying`: this process is about to end, and what its engine's app still says is an error."""
        self._engine_app = engine_app
        self._slots = slots
        self._admission = seats
        self._access = access or AccessConfig()
        self._keys = keys or Keys()
        self._queue = limits.Queue(self._access)
        self._modes = modes
        self._own = own_routes(lambda: names(slots(), modes), control, self._access)
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
        path, headers = scope["path"], scope["headers"]
        cors.check(headers, self._access.allow_origins, keyless=not self._keys.held)
        caller = LOCAL if path in OPEN_PATHS else self._keys.caller(headers)
        scope = {**scope, "caller": caller}
        if path in GENERATES:
            with self._queue.place():  # before the body is read, so that it bounds memory too
                await self._generate(scope, receive, send, caller)
        elif path in ENGINE_PATHS:
            body = await limits.read_body(receive, self._access.max_body_bytes) if scope["method"] == "POST" else b""
            if body:
                fields = parse_object(body)
                body = self._for_engine(fields, self._resolve(fields.get("model"), scope), caller)
            await self._forward(scope, body, receive, send)
        else:
            await self._own(scope, receive, send)

    async def _generate(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        body = await limits.read_body(receive, self._access.max_body_bytes)
        fields = limits.check(parse_object(body), self._access)
        name, mode = parse_model(fields.get("model"))
        ref = self._resolve(name, scope)
        answer = ResponseTap(send, ref, self._replica, self._dying)
        try:
            with self._admission.user():
                if mode is not None:
                    kept = {name: value for name, value in fields.items() if name not in ENGINE_FIELDS}
                    answer.tokens = await self._modes.answer(scope, receive, answer, kept, mode, ref)
                else:
                    inside = {**scope, "policy_version": str(ref)}
                    await self._forward(inside, self._for_engine(fields, ref, caller), receive, answer, new_id(ref))
        except Exception as error:  # of vLLM's app too, which raises once more what it answered with a 500
            answer.status = error.status if isinstance(error, Refusal) else 500
            raise
        finally:
            self._count(answer, mode)
        self._record(fields, scope, ref, answer, caller)

    def _count(self, answer: ResponseTap, mode: str | None) -> None:
        self.tokens += answer.tokens
        self._metrics.count("tokens_total", answer.tokens, purpose="user")
        self._metrics.count("user_requests_total", status=f"{max(answer.status, 200) // 100}xx")
        if answer.first_token_s is not None and mode is None:
            self._metrics.observe("first_token_seconds", answer.first_token_s)

    def _resolve(self, name: Any, scope: Scope) -> PolicyRef:
        """The version that a request gets, which a conversation may have pinned. Raises: Refusal."""
        pinned = header(scope, PIN)
        if pinned and name in (None, ALIAS):
            name = f"{ALIAS}@v{pinned.removeprefix('v')}"
        return resolve_model(name, self._slots(), self._modes)

    def _for_engine(self, fields: Mapping[str, Any], ref: PolicyRef, caller: Caller) -> bytes:
        """The body without what is not the client's to say."""
        kept = {name: value for name, value in fields.items() if name not in ENGINE_FIELDS}
        salt = {"cache_salt": caller.salt} if caller.salt else {}
        return json.dumps({**kept, **salt, "model": str(ref), "priority": USER_PRIORITY}).encode()

    def _record(
        self, fields: Mapping[str, Any], scope: Scope, ref: PolicyRef, answer: ResponseTap, caller: Caller
    ) -> None:
        """What was answered whole can be voted on."""
        heard = answer.heard
        if answer.status != 200 or not heard.whole or not heard.id or not heard.texts:
            return
        self.recorder.add(
            {
                "id": heard.id,
                "messages": fields.get("messages"),
                "texts": [heard.texts.get(i, "") for i in range(max(heard.texts) + 1)],
                "start": {"version": ref.version},
                "end": {"version": ref.version},
                "key": caller.key,
                "user": user if is_text(user := fields.get("user")) else "",
                "learn": header(scope, LEARN) != "no",
            }
        )

    async def _forward(self, scope: Scope, body: bytes, receive: Receive, send: Send, id: str = "") -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in NOT_THE_ENGINES]
        headers.append((b"content-length", str(len(body)).encode()))
        if id:
            headers.append((b"x-request-id", id.encode()))  # becomes the answer's id
        await self._engine_app({**scope, "headers": headers}, _replaying(body, receive), send)


def new_id(ref: PolicyRef) -> str:
    """Of an answer: names its version, and cannot be guessed."""
    return f"v{ref.version}-{uuid.uuid4().hex}"


def names(slots: Slots, modes: Modes) -> list[str]:
    """What `model` may be."""
    return [ALIAS, *(f"{ALIAS}:{mode}" for mode in sorted(modes.modes)), *map(str, slots.promoted)]


def resolve_model(name: Any, slots: Slots, modes: Modes) -> PolicyRef:
    """The version behind a model name. Raises: Refusal 404 with the names that would do."""
    if name is None or name == ALIAS:
        return slots.serve
    for ref in slots.promoted:
        if str(ref) == name:
            return ref
    there = ", ".join(names(slots, modes))
    raise Refusal(404, f"The model `{name}` does not exist; available: {there}.", "not_found_error", "model")


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
