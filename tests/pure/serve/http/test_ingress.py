"""The ingress: who may be learned from, and methods that vLLM's app lacks."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from core.clock import ManualClock
from core.messages import BASE, PolicyRef, Slots
from core.metrics import Metrics
from serve.engine.admission import Admission
from serve.http.errors import Refusal
from serve.http.ingress import Ingress, resolve_model
from serve.http.keys import Caller
from serve.http.modes import Modes


class EngineApp:
    """Answers chats and GET, as vLLM's app does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["method"] == ("GET" if scope["path"] in ("/health", "/version") else "POST")
        answer = {"id": "answer", "choices": [{"index": 0, "message": {"content": "4"}}]}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200 if known else 405, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def ingress() -> Ingress:
    control: Any = None
    slots = Slots(epoch=1, serve=BASE, explore=BASE, promoted=(BASE,))
    modes = Modes({}, control, lambda: "id", ManualClock())

    class Silent:
        async def answered(self, responses: Any) -> None: ...
        async def overview(self) -> dict[str, object]:
            return {}

    silent: Any = Silent()
    seats = Admission(8, 1, 0.5, 5.0, ManualClock())
    return Ingress(EngineApp(), lambda: slots, seats, silent, Metrics([]), "replica", modes)


def asked(app: Ingress, method: str, path: str, **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def learned_from(*headers: tuple[str, str]) -> bool:
    """What is recorded of a chat with these headers."""
    app = ingress()
    body = {"messages": [{"role": "user", "content": "2+2?"}]}
    assert asked(app, "POST", "/v1/chat/completions", json=body, headers=list(headers)).status_code == 200
    [recorded] = app.recorder._waiting
    return recorded["learn"]


def test_without_the_header_a_chat_is_learned_from() -> None:
    assert learned_from() is True


@pytest.mark.parametrize("said", ["yes", "Yes", "YES", " y ", "true", "True", "1", "on", "ON"])
def test_a_known_yes_allows_learning(said: str) -> None:
    assert learned_from(("x-ratchet-learn", said)) is True


@pytest.mark.parametrize(
    "said",
    ["no", "No", "NO", " no ", "n", "false", "False", "0", "off", "never", "none", "null", "", "yes, no", "nein", "2"],
)
def test_whatever_is_no_known_yes_is_a_refusal(said: str) -> None:
    assert learned_from(("X-Ratchet-Learn", said)) is False


def test_one_refusal_among_several_headers_counts() -> None:
    assert learned_from(("x-ratchet-learn", "yes"), ("x-ratchet-learn", "no")) is False
    assert learned_from(("x-ratchet-learn", "yes"), ("x-ratchet-learn", "on")) is True


def test_a_health_check_may_ask_for_the_head_only() -> None:
    for path in ("/health", "/version", "/v1/models", "/"):
        assert asked(ingress(), "HEAD", path).status_code == 200, path
    assert asked(ingress(), "HEAD", "/tokenize").status_code == 405


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
@pytest.mark.parametrize("value", ["1180591620717411303424", '["\\ud800"]', "NaN", "1e999"])
def test_what_would_break_the_engine_does_not_reach_it(path: str, value: str) -> None:
    reply = asked(ingress(), "POST", path, content=f'{{"messages": [], "top_k": {value}}}')
    error = reply.json()["error"]
    assert reply.status_code == error["code"] == 400
    assert error["param"] == "top_k" and error["type"] == "invalid_request_error"


def test_only_admins_may_ask_for_a_version_on_trial() -> None:
    user, admin = Caller("ann", "user"), Caller("ben", "admin")
    tried, promoted = PolicyRef(version=4), PolicyRef(version=2)
    slots = Slots(epoch=1, serve=promoted, promoted=(BASE, promoted), trial=(tried,))
    none: Any = Modes({}, None, lambda: "id", ManualClock())  # type: ignore[arg-type]
    assert resolve_model("policy@v4", slots, none, admin) == tried
    assert resolve_model("policy", slots, none, admin) == promoted, "nobody gets it without asking"
    with pytest.raises(Refusal, match=r"available: policy, policy@v0, policy@v2\.$"):
        resolve_model("policy@v4", slots, none, user)
