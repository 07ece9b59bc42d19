"""What web pages may do to a server that their reader's browser reaches."""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from serve.http.cors import check, with_cors
from serve.http.errors import Refusal

PAGE = "https://app.example.org"


def headers(host: str | None, origin: str | None = None) -> list[tuple[bytes, bytes]]:
    given = [(b"Host", host), (b"origin", origin)]
    return [(name, value.encode()) for name, value in given if value is not None]


def refused(given: list[tuple[bytes, bytes]], allow: tuple[str, ...] = (), keyless: bool = True) -> str:
    with pytest.raises(Refusal) as caught:
        check(given, allow, keyless)
    assert caught.value.status == 403
    return caught.value.message


def test_a_page_of_another_origin_is_refused_with_or_without_keys_unless_it_is_listed() -> None:
    for keyless in (True, False):
        told = refused(headers("127.0.0.1:8000", PAGE), keyless=keyless)
        assert PAGE in told and "serve.access.allow_origins" in told
        check(headers("127.0.0.1:8000", PAGE), (PAGE,), keyless)
    for origin in ("null", "http://127.0.0.1:9000", "http://app.example.org", f"{PAGE}.evil.org", ""):
        refused(headers("127.0.0.1:8000", origin), (PAGE,))


def test_the_servers_own_pages_and_callers_that_are_no_browser_pass() -> None:
    check(headers("127.0.0.1:8000", "http://127.0.0.1:8000"), (), True)
    check(headers("llm.example.org", "https://llm.example.org"), (), False)
    check(headers("127.0.0.1:8000"), (), True)
    check(headers(None), (), True)


@pytest.mark.parametrize("host", ["evil.org:8000", "evil.org", "127.0.0.1.evil.org", "localhost.evil.org", "", "[x]:1"])
def test_a_name_that_a_page_could_own_is_refused_without_keys(host: str) -> None:
    assert repr(host) in refused(headers(host, f"http://{host}"))
    check(headers(host), (), False)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "a.localhost:1", "127.0.0.1", "[::1]:8000", "10.0.0.5:3"]
)
def test_an_address_is_no_name(host: str) -> None:
    check(headers(host), (), True)


@given(st.binary(), st.binary(), st.booleans())
def test_no_bytes_do_more_than_be_refused(host: bytes, origin: bytes, keyless: bool) -> None:
    try:
        check([(b"host", host), (b"origin", origin)], (PAGE,), keyless)
    except Refusal as refusal:
        assert refusal.response().body


def asked(allow: tuple[str, ...], method: str, origin: str) -> httpx.Response:
    """Of an app that, as vLLM's own does, lets every page read its answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("hello", headers={"access-control-allow-origin": "*"})(scope, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(with_cors(app, allow))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            wanted = {"origin": origin, "access-control-request-method": "POST"}
            wanted |= {"access-control-request-headers": "authorization,content-type,x-policy-version,x-ratchet-learn"}
            return await client.request(method, "/v1/models", headers=wanted)

    return asyncio.run(ask())


def test_a_listed_page_may_ask_and_read_and_is_named_once() -> None:
    preflight, answer = asked((PAGE,), "OPTIONS", PAGE), asked((PAGE,), "GET", PAGE)
    assert preflight.status_code == 200 and answer.text == "hello"
    for reply in (preflight, answer):
        assert reply.headers.get_list("access-control-allow-origin") == [PAGE]
        assert "access-control-allow-credentials" not in reply.headers
    assert "x-policy-version" in answer.headers["access-control-expose-headers"]


def test_a_page_that_is_not_listed_may_not_ask() -> None:
    assert asked((PAGE,), "OPTIONS", "https://evil.org").status_code == 400


def test_without_origins_the_app_is_left_as_it_is() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    assert with_cors(app, ()) is app
