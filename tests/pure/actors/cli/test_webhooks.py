"""Events of a run, told to a real HTTP server: signed, in order, again after a failure, and once after a restart."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from actors.cli import webhooks
from actors.cli.webhooks import CURSORS, Webhooks, headers, secret_of, told
from core.config import WebhooksConfig
from core.errors import ConfigError
from core.messages import Event
from core.store.records import event
from core.store.writer import RunReader, RunStore

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Server:
    """Answers with `statuses`, then with 200. `got`: the headers and bodies of all requests."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.got = list(statuses), list[tuple[dict[str, str], bytes]]()

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/hook", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        finally:
            await runner.cleanup()

    @property
    def versions(self) -> list[int]:
        return [json.loads(body)["data"]["version"] for _, body in self.got]


class Store:
    """Writes to the run's file at once."""

    def __init__(self, folder: Path) -> None:
        self.store = RunStore(folder)

    async def append(self, records: object) -> None:
        self.store.write(records)  # type: ignore[arg-type]

    def decide(self, version: int) -> None:
        about = {"verdict": "hold", "reason": "undecided"}
        self.store.write([event(100.0 + version, "versions", "decided", version=version, **about)])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(webhooks, "LOOK_S", 0.05)


def of(folder: Path, store: Store, *urls: str, attempts: int = 12) -> Webhooks:
    config = WebhooksConfig(urls=urls, attempts=attempts)
    return Webhooks(config, folder, store, secret_of(SECRET))  # type: ignore[arg-type]


async def reaches(server: Server, requests: int) -> None:
    async with asyncio.timeout(10):
        while len(server.got) < requests:
            await asyncio.sleep(0.02)


def test_the_signature_is_that_of_the_specification() -> None:
    """The vector of standardwebhooks.com, also what its Python library says."""
    made = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', secret_of(SECRET))
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330")
    assert "webhook-signature" not in headers("msg", 1, b"", None)


async def test_new_events_are_told_in_order_and_again_when_they_are_not_taken(tmp_path: Path) -> None:
    store, server = Store(tmp_path), Server(500, 503)
    store.decide(1)  # before the address was named
    async with server.up() as url:
        async with of(tmp_path, store, url).telling():
            await asyncio.sleep(0.1)
            assert json.loads((tmp_path / CURSORS).read_text()) == {url: 1}, "also if the run ends before a delivery"
            store.decide(2)
            store.decide(3)
            await reaches(server, 4)
        assert server.versions == [2, 2, 2, 3]
        first, again, third, other = (head["webhook-id"] for head, _ in server.got)
        assert first == again == third != other
        (head, body), *_ = server.got
        signed = headers(head["webhook-id"], int(head["webhook-timestamp"]), body, secret_of(SECRET))
        assert head["webhook-signature"] == signed["webhook-signature"]
        assert json.loads(body) == {
            "type": "decided",
            "timestamp": "1970-01-01T00:01:42+00:00",
            "data": {
                "version": 2, "verdict": "hold", "reason": "undecided", "run": tmp_path.name,
                "text": "v2 hold: undecided",
            },
        }  # fmt: skip
        store.decide(4)  # while nobody tells
        async with of(tmp_path, store, url).telling():
            await reaches(server, 5)
        assert server.versions == [2, 2, 2, 3, 4] and json.loads((tmp_path / CURSORS).read_text()) == {url: 4}


async def test_an_address_that_takes_nothing_delays_no_other_and_is_noted(tmp_path: Path) -> None:
    store, server = Store(tmp_path), Server()
    nobody = "http://127.0.0.1:9/hook"
    async with server.up() as url, of(tmp_path, store, nobody, url, attempts=3).telling():
        await asyncio.sleep(0.1)
        store.decide(1)
        await reaches(server, 1)
        async with asyncio.timeout(10):
            while not (noted := RunReader(tmp_path).events("webhook_failed")):
                await asyncio.sleep(0.02)
    assert noted[0].detail["url"] == nobody and noted[0].detail["of"] == "decided"
    assert "ConnectError" in noted[0].detail["why"]


async def test_what_happens_last_is_still_told(tmp_path: Path) -> None:
    store, server = Store(tmp_path), Server()
    async with server.up() as url:
        async with of(tmp_path, store, url).telling():
            await asyncio.sleep(0.1)
            store.decide(7)
        assert server.versions == [7]


def test_an_event_without_a_sentence_is_told_by_its_kind() -> None:
    assert told(Event(at=0.0, actor="a", kind="odd", detail={}), "run")["data"] == {"run": "run", "text": "odd"}


@pytest.mark.parametrize("text", ["secret", "whsec_short", "whsec_%%%", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_a_secret_that_is_none_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ConfigError, match=r"RATCHET_WEBHOOK_SECRET is no secret .*\(openssl rand"):
        secret_of(text)
    assert secret_of(None) is None and secret_of("") is None


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'example\.org' is no address; expected http:// or https://"):
        WebhooksConfig(urls=("example.org",))
