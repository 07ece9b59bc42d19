"""What becomes of the requests of a drill's users, against a small server that breaks as a killed replica does."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench import _clients, soak
from bench._clients import NOBODY, RETRIES, Answered, ClientLog, Load, attempt, pause_s
from bench._live import LiveRun

HEADERS = {"x-policy-version": "3", "x-policy-replica": "a.1"}
WHOLE = [{"id": "r1", "choices": [{"text": "7"}]}, {"choices": [{"text": "", "finish_reason": "length"}]}]
TOKEN, ROLE = {"choices": [{"text": "7"}]}, {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
Reply = Callable[[web.Request], Any]


def says(*events: dict[str, Any], breaks: bool = False) -> Reply:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        if breaks:
            assert request.transport is not None
            request.transport.close()
        return response

    return stream


def status(code: int, **headers: str) -> Reply:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=code, headers=headers)

    return refuse


async def breaks(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def tells(body: object) -> Reply:
    async def reply(_: web.Request) -> web.Response:
        return web.json_response(body, headers=HEADERS)

    return reply


@asynccontextmanager
async def load_on(folder: Path, *replies: Reply) -> AsyncIterator[Load]:
    """The server gives each request the next of these replies."""
    queue = list(replies)

    async def serve(request: web.Request) -> web.StreamResponse:
        await request.read()
        return await queue.pop(0)(request)

    app = web.Application()
    app.router.add_post("/{path:.*}", serve)
    async with TestServer(app) as server, httpx.AsyncClient(trust_env=False) as client:
        (folder / "run").mkdir()
        (folder / "run/live.json").write_text(json.dumps({"pid": 0, "url": str(server.make_url("")).rstrip("/")}))
        options = argparse.Namespace(out=folder, quick=False, run=folder / "run", config="", seed=0)
        yield Load(LiveRun(options, ()), client)
    assert not queue, "not every reply was asked for"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clients, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(_clients, "IMPATIENT_RATIO", 0.0)


async def ask(load: Load, stream: bool = True) -> dict[str, int]:
    await load._ask("/v1/completions", {"stream": stream})
    return dict(load.log.ends[load.killed])


async def test_an_answer_that_broke_after_a_token_is_cut_and_not_retried(tmp_path: Path) -> None:
    async with load_on(tmp_path, says(ROLE, TOKEN, breaks=True)) as load:
        load.killed = "engine"
        assert await ask(load) == {"cut": 1}
        assert load.log.failed["engine"] == {"cut after its first token": 1}


async def test_a_stream_that_broke_before_a_token_is_refused_and_not_retried(tmp_path: Path) -> None:
    async with load_on(tmp_path, says(ROLE, breaks=True)) as load:
        assert await ask(load) == {"refused": 1}
        assert list(load.log.failed[NOBODY]) == ["no token after the headers: RemoteProtocolError"]


async def test_a_stream_that_ends_early_is_cut_or_refused_by_whether_it_had_a_token(tmp_path: Path) -> None:
    async with load_on(tmp_path, says(TOKEN), says(ROLE)) as load:
        assert await ask(load) == {"cut": 1}
        assert await ask(load) == {"cut": 1, "refused": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_retried_twice_and_a_retry_that_answers_counts_as_both(tmp_path: Path, stream: bool) -> None:
    whole = says(*WHOLE) if stream else tells({"id": "r1", "choices": [{"text": "7", "finish_reason": "length"}]})
    async with load_on(tmp_path, status(503), breaks, whole) as load:
        load.killed = "everything"
        assert await ask(load, stream) == {"answered": 1, "retried": 1}
        failed = load.log.failed["everything"]
        assert failed.pop("status 503") == 1 and list(failed.values()) == [1] and "no connection" in next(iter(failed))
        assert [answer.version for answer in load.log.answers] == [3] and load.answered_by == {"a.1"}


async def test_a_request_is_refused_after_its_last_retry_and_at_once_for_a_fault_of_its_own(tmp_path: Path) -> None:
    async with load_on(tmp_path, *[status(503)] * (1 + RETRIES), status(400)) as load:
        assert await ask(load) == {"refused": 1, "retried": 1}
        assert await ask(load) == {"refused": 2, "retried": 1}
        assert load.log.failed[NOBODY] == {"status 503": 3, "status 400": 1} and load.log.requests == 2


async def test_nobody_there_is_a_refusal(tmp_path: Path) -> None:
    async with load_on(tmp_path) as load:
        (tmp_path / "run/live.json").unlink()
        assert await ask(load) == {"refused": 1, "retried": 1}


async def test_a_broken_body_that_is_no_stream_is_retried(tmp_path: Path) -> None:
    async with load_on(tmp_path, says(breaks=True), status(400)) as load:
        assert await ask(load, stream=False) == {"refused": 1, "retried": 1}


async def test_retries_wait_as_long_as_the_server_says() -> None:
    said = httpx.Headers({"retry-after": "7"})
    assert pause_s(0, said) == 7.0 and pause_s(0, httpx.Headers({"retry-after": "soon"})) <= 0.001
    pauses = [pause_s(retry, httpx.Headers()) for retry in (0, 1, 20)]
    assert 0.00075 <= pauses[0] <= 0.001 < 0.0015 <= pauses[1] <= 0.002 and 6.0 <= pauses[2] <= 8.0
    refuse = httpx.MockTransport(lambda _: httpx.Response(429, headers=said))
    async with httpx.AsyncClient(transport=refuse) as client:
        assert (await attempt(client, "http://x", {"stream": True}, 0)).pause_s == 7.0


async def test_a_vote_is_sent_with_the_same_id_until_it_is_acknowledged(tmp_path: Path) -> None:
    sent: list[str] = []

    def told(result: str) -> Reply:
        async def reply(request: web.Request) -> web.Response:
            id = (await request.json())["id"]
            sent.append(id)
            return web.json_response({"results": [{"id": id, "result": result}]})

        return reply

    replies = (breaks, status(503), told("duplicate"), told("counted"), breaks, told("kept"), status(404))
    async with load_on(tmp_path, *replies) as load:
        for _ in range(4):
            await load._like("r1")
        again, whole, kept = sent
        assert load.log.sent_again == {again, kept} and load.log.met_twice == {again}
        assert load.log.votes == {again, whole} and load.log.feedback == {again, whole, kept}


async def test_an_impatient_client_hangs_up_and_sends_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clients, "IMPATIENT_RATIO", 1.0)
    release = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with load_on(tmp_path, late, tells({"votes": ["duplicate", "counted"]})) as load:
        assert await load._tell("/admin/vote", {}, ["v1", "v2"]) == {"votes": ["duplicate", "counted"]}
        assert load.log.sent_again == {"v1", "v2"}
        release.set()


async def test_a_soak_counts_attempts_that_a_retry_made_good_as_errors(tmp_path: Path) -> None:
    async with load_on(tmp_path, status(503), says(*WHOLE)) as load:
        await ask(load)
        assert soak.errors(load.log, ["hung"])["errors"] == 2
        assert soak.errors(ClientLog(tmp_path), [])["errors"] == 0


def test_a_slope_is_the_growth_per_hour() -> None:
    rows = [{"at_s": 60.0 * minute, "fds": 100 + 2 * minute} for minute in range(10)]
    assert soak.slope(rows, lambda row: row["fds"]) == 120.0


def test_what_clients_were_told_survives_a_restart_of_the_drill(tmp_path: Path) -> None:
    clients = ClientLog(tmp_path, {"v"}, {"f"}, {"1"}, {"v"}, {"v"}, [Answered(1.0, 2.0, 3, 4.0)])
    clients.ends["store"].update(["cut", "answered", "retried"])
    clients.failed["store"]["status 503"] += 2
    clients.save()
    again = ClientLog(tmp_path)
    again.load()
    assert again == clients and again.requests == 2 and again.ended("cut") == 1
    again.ends["buffer"]["cut"] += 1
    assert again.ended("cut") == 2
