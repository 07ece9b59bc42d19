"""Ratchet's own routes, without a replica behind them."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from core.config import AccessConfig
from core.errors import Missing, Unavailable
from serve.http.keys import LOCAL
from serve.http.routes import OwnRoutes


class Desk:
    """What a replica asks of the rest of the run."""

    def __init__(self) -> None:
        self.said: list[list[dict[str, Any]]] = []

    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]:
        self.said.append([dict(each) for each in said])
        return [{"id": each.get("id", ""), "result": "counted"} for each in said]

    async def overview(self) -> dict[str, Any]:
        return {}


async def asked(desk: Any, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    app = OwnRoutes(lambda _: [{"id": "policy"}], desk, AccessConfig())

    async def as_local(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "caller": LOCAL}, receive, send)

    transport = httpx.ASGITransport(as_local)
    async with httpx.AsyncClient(transport=transport, base_url="http://ratchet") as client:
        return await client.request(method, path, json=body, headers=headers)


async def posted(desk: Desk, body: Any, **headers: str) -> httpx.Response:
    return await asked(desk, "POST", "/v1/feedback", body, **headers)


async def test_feedback_that_the_gateway_sends_again_bears_the_same_ids() -> None:
    desk, up = Desk(), {"response_id": "r", "binary": True}
    for body in (up, [up, {**up, "id": "mine"}, up]):
        for _ in range(2):
            assert (await posted(desk, body, **{"x-ratchet-id": "once"})).status_code == 200
    single, again, many, many_again = desk.said
    assert single == again and many == many_again
    assert [each["id"] for each in many] == ["once-0", "mine", "once-2"]


async def test_without_a_gateway_nobody_makes_up_an_id() -> None:
    desk = Desk()
    await posted(desk, {"response_id": "r", "binary": True})
    assert "id" not in desk.said[0][0]


class Away:
    """A run whose parts answer nothing."""

    def __getattr__(self, name: str) -> Any:
        async def away(*_: Any) -> Any:
            raise Missing("no such answer") if name == "feedback" else Unavailable("try again in a moment")

        return away


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/feedback", 404),
        ("GET", "/v1/feedback", 503),
        ("GET", "/status", 503),
        ("GET", "/metrics", 503),
        ("POST", "/admin/pause", 503),
        ("PUT", "/admin/pause", 404),
        ("POST", "/page.css", 404),
        ("GET", "/nowhere", 404),
    ],
)
async def test_every_route_tells_why_it_failed_in_openais_shape(method: str, path: str, status: int) -> None:
    reply = await asked(Away(), method, path, {"response_id": "r", "binary": True})
    assert reply.status_code == reply.json()["error"]["code"] == status
