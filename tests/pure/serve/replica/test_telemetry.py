"""What reaches Ray's metrics, and what the ingress counts of each answer."""

import pickle
import threading
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.clock import SystemClock
from core.messages import BASE, Slots
from core.metrics import MemorySink, Metric, Metrics
from serve.engine.admission import Admission
from serve.http.ingress import Ingress
from serve.http.modes import Modes
from serve.replica.telemetry import RaySink, merge

CHAT = {"messages": [{"role": "user", "content": "2 and 3?"}]}


class Instrument:
    """What Ray would be told, in the order told."""

    def __init__(self, row: Metric) -> None:
        self.row = row
        self.told: list[tuple[float, dict[str, str]]] = []
        self.again = threading.Event()

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))
        if len(self.told) > 3:
            self.again.set()

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray refuses to raise a counter by 0"
        self.told.append((value, tags))

    def _record(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))

    observe = set


class Ray:
    def __init__(self) -> None:
        self.made: dict[str, Instrument] = {}

    def __call__(self, row: Metric) -> Any:
        return self.made.setdefault(row.name, Instrument(row))


def test_a_gauge_that_is_set_once_is_told_again_and_again() -> None:
    ray = Ray()
    metrics = Metrics([RaySink(ray, repeat_s=0.01)])
    metrics.set("anchor_agreement", 0.5, who="candidate")
    metrics.set("anchor_agreement", 0.75, who="candidate")
    gauge = ray.made["anchor_agreement"]
    assert gauge.again.wait(30)
    metrics.close()
    assert gauge.told[0] == (0.5, {"who": "candidate"})
    assert {value for value, _ in gauge.told[1:]} == {0.75}


def test_counters_and_histograms_are_told_once() -> None:
    ray = Ray()
    metrics = Metrics([RaySink(ray, repeat_s=0.01)])
    metrics.begin("verdicts_total")
    metrics.count("verdicts_total", verdict="hold")
    metrics.observe("vote_share", 0.5)
    metrics.set("disk_full", 0)
    assert ray.made["disk_full"].again.wait(30)
    metrics.close()
    begun = [(0.0, {"verdict": verdict}) for verdict in ("promote", "reject", "hold")]
    assert ray.made["verdicts_total"].told == [*begun, (1, {"verdict": "hold"})]
    assert ray.made["vote_share"].told == [(0.5, {})]


def test_a_sink_travels_without_what_it_has_told() -> None:
    sink = RaySink(Ray())
    sink.record(Metric("disk_full", "gauge", "help"), 1, {})
    assert isinstance(pickle.loads(pickle.dumps(sink)), RaySink)
    sink.close()


def test_one_page_has_each_header_once() -> None:
    page = '# HELP a help\n# TYPE a counter\na{n="%d"} 1\n'
    assert merge([page % 1, page % 2]) == '# HELP a help\n# TYPE a counter\na{n="1"} 1\na{n="2"} 1\n'


# --- the ingress ---


class Control:
    async def answered(self, responses: Any) -> None: ...

    async def overview(self) -> dict[str, Any]:
        return {}


async def whole(_: Request) -> Response:
    return JSONResponse({"usage": {"completion_tokens": 3}})


async def streamed(_: Request) -> Response:
    async def chunks() -> Any:
        for _ in range(2):
            yield b"data: {}\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


async def broken(_: Request) -> Response:
    raise RuntimeError("the engine broke")


async def counted(endpoint: Any, ask: Any = None) -> tuple[dict[str, float], MemorySink]:
    """What is counted of one request that this endpoint answers."""
    app = Starlette(routes=[Route("/v1/chat/completions", endpoint, methods=["POST"])])
    sink = MemorySink()
    metrics = Metrics([sink])
    slots = Slots(epoch=1)
    seats = Admission(8, 1, 0.5, 5.0, SystemClock())
    modes = Modes({}, None, lambda: "id", SystemClock())  # type: ignore[arg-type]
    ingress = Ingress(app, lambda: slots, seats, Control(), metrics, "replica", modes)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(ingress, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        await client.post("/v1/chat/completions", json={**CHAT, **(ask or {})})
    assert slots.serve == BASE and seats.users == 0
    return metrics.values(), sink


async def test_the_first_token_of_a_streamed_answer_is_timed() -> None:
    values, sink = await counted(streamed, {"stream": True})
    (first,) = [value for name, value, _ in sink.records if name == "first_token_seconds"]
    assert 0 <= first < 60
    assert values["user_requests_total{status=2xx}"] == 1 and values["tokens_total{purpose=user}"] == 2


async def test_an_answer_in_one_piece_has_no_first_token() -> None:
    values, _ = await counted(whole)
    assert values == {"tokens_total{purpose=user}": 3, "user_requests_total{status=2xx}": 1}


@pytest.mark.parametrize(("endpoint", "ask", "status"), [(broken, {}, "5xx"), (whole, {"model": "policy:no"}, "4xx")])
async def test_an_answer_that_fails_is_counted_too(endpoint: Any, ask: dict[str, str], status: str) -> None:
    values, _ = await counted(endpoint, ask)
    assert values == {f"user_requests_total{{status={status}}}": 1}
