"""No request breaks a route. Requests are fuzzed from vLLM's own schema and sent over HTTP to a real engine."""

import asyncio
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import SystemClock
from core.config import EngineConfig, Lora, MethodConfig, ModelConfig
from core.errors import Missing, Unavailable, VersionError
from core.messages import BASE, Slots
from core.metrics import Metrics
from methods.modes import modes
from serve.engine.admission import Admission
from serve.engine.engine import Engine
from serve.engine.local_policy import EnginePolicy
from serve.engine.openai_app import ALLOWED
from serve.http.ingress import USER_PRIORITY, Ingress
from serve.http.modes import Modes

MODEL = Path(__file__).parents[4] / "models" / "word-problems" / "model"
EXAMPLES = 60
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Control:
    """A fake control for the ingress. It is unavailable for pause and resume."""

    async def status(self) -> dict[str, Any]:
        return {"versions": {}}

    async def command(self, name: str, argument: Any) -> dict[str, Any]:
        if name in ("pause", "resume"):
            raise Unavailable("the admin actor is not up yet; try again in a moment")
        raise VersionError(f"{argument!r} is not a version")

    async def overview(self) -> dict[str, Any]:
        return {"at": 1.0}

    async def metrics(self) -> str:
        return ""

    async def answered(self, responses: Sequence[dict[str, Any]]) -> None:
        self.recorded = [*getattr(self, "recorded", []), *responses]

    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]:
        raise Missing(f"no response {said[0]['response_id']!r}")

    async def feedback_page(self, key: str, after: int, limit: int) -> dict[str, Any]:
        return {"data": [], "next": None}


class Server:
    """An ingress with a real engine, served by uvicorn in its own thread."""

    def __init__(self) -> None:
        self.url = ""
        self.schema: dict[str, Any] = {}
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Server":
        self._thread.start()
        while not self._up.wait(0.2):
            assert self._thread.is_alive(), "the engine did not start; its error is above"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(60)

    async def _serve(self) -> None:
        model = ModelConfig(path=str(MODEL), weights=Lora(), engine_dtype="float32")
        engine = Engine(model, EngineConfig(max_seqs=64, max_tokens=256, kv_cache_bytes=2**27), max_versions=2, seed=0)
        await engine.start()
        try:
            front: Any = await engine.openai_app()
            self.schema = front._app.openapi()
            seats = Admission(64, 8, 0.5, 5.0, SystemClock())
            slots = Slots(epoch=1, serve=BASE, explore=BASE, promoted=(BASE,), loaded=())
            policy = EnginePolicy(engine, priority=USER_PRIORITY)
            answers = Modes(modes(MethodConfig()), policy, lambda: f"chatcmpl-{uuid.uuid4().hex}", SystemClock())
            ingress = Ingress(front, lambda: slots, seats, Control(), Metrics([]), "replica", answers)
            listening = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self._server = uvicorn.Server(uvicorn.Config(ingress, log_level="error", lifespan="off"))
            self._up.set()
            await self._server.serve([listening])
        finally:
            await engine.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client
        question = {"model": "policy", "prompt": "Tom has 5 apples.\n", "max_tokens": 4}
        assert client.post("/v1/completions", json=question).status_code == 200, "the engine died"


relaxed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def operations(server: Server) -> Iterator[Any]:
    known = {path: what for path, what in server.schema["paths"].items() if path in ALLOWED}
    assert set(known) == ALLOWED
    schema = schemathesis.openapi.from_dict({**server.schema, "paths": known})
    for operation in schema.get_all_operations():
        yield operation.ok()


def answered(cases: Any, url: str) -> set[int]:
    """The status codes of the replies. Raises: AssertionError with the first request that breaks a route."""
    seen: set[int] = set()

    @relaxed
    @given(cases)
    def check(case: Any) -> None:
        reply = case.call(base_url=url)
        assert reply.status_code < 500, f"{case.as_curl_command()}\n{reply.status_code} {reply.text[:500]}"
        seen.add(reply.status_code)

    check()
    return seen


def test_no_request_that_the_schema_allows_or_forbids_is_a_server_error(server: Server, client: httpx.Client) -> None:
    asked: dict[str, set[int]] = {}
    for operation in operations(server):
        asked[operation.label] = answered(operation.as_strategy(), server.url)
        if operation.body:
            wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
            asked[operation.label] |= answered(wrong, server.url)
    assert asked.keys() >= {"POST /v1/completions", "POST /v1/chat/completions", "POST /tokenize", "GET /v1/models"}
    assert all(seen & {200, 400, 404} for seen in asked.values()), asked


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_our_own_routes_answer_anything_with_their_own_error(client: httpx.Client) -> None:
    paths = st.sampled_from(
        ["/status", "/metrics", "/v1/models", "/v1/feedback", "/admin/promote", "/admin/pause", "/admin/", "/nowhere"]
    )

    @relaxed
    @given(
        st.sampled_from(METHODS), paths, st.binary() | json_values.map(lambda value: {"argument": value}) | json_values
    )
    def check(method: str, path: str, body: Any) -> None:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        try:
            reply = client.request(method, path, **sent)
        except ValueError:  # a float that JSON cannot represent
            return
        assert reply.status_code < 500 or (path == "/admin/pause" and reply.status_code == 503), reply.text
        if reply.status_code >= 400 and method != "HEAD":
            assert reply.json()["error"]["code"] == reply.status_code

    check()


def test_bytes_that_are_no_request_are_refused_and_nothing_else_is_harmed(client: httpx.Client) -> None:
    @relaxed
    @given(st.binary(max_size=300), st.sampled_from(["/v1/completions", "/v1/chat/completions", "/tokenize"]))
    def check(body: bytes, path: str) -> None:
        reply = client.post(path, content=body)
        assert 400 <= reply.status_code < 500

    check()
