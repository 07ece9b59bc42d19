"""The status page's routes: what anybody may fetch, and the stream of events that all viewers share."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actors.inspect.sentences import sentence
from actors.people.admin import Admin, Ports
from actors.people.overview import Past, overview, sentences
from core.clock import ManualClock
from core.errors import Unavailable
from core.messages import Decision, Event, PolicyRef, Published
from core.store.records import event, message
from core.store.writer import RunStore
from serve.http.page import FILES, FOLDER
from tests.page_server import PageServer
from tests.page_server import event as line


@pytest.fixture(scope="module")
def shared() -> Iterator[PageServer]:
    with PageServer(every_s=0.05, stream_s=0.4) as server:
        yield server


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(every_s=0.05, stream_s=20) as server:
        yield server


def until(holds: Any, wait_s: float = 20) -> bool:
    stop_at = time.monotonic() + wait_s
    while not holds() and time.monotonic() < stop_at:
        time.sleep(0.01)
    return holds()


def told_by(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, by name."""
    name = ""
    for text in lines:
        if text.startswith("event: "):
            name = text.removeprefix("event: ")
        if text.startswith("data: "):
            yield name, json.loads(text.removeprefix("data: "))


# --- files ---


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_under_a_strict_policy(shared: PageServer, path: str) -> None:
    reply = httpx.get(shared.url + path, trust_env=False)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith(FILES[path][1])
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_every_file_in_the_folder_has_a_route_and_names_nothing_outside() -> None:
    names = {name for name, _ in FILES.values()}
    assert names == {path.name for path in FOLDER.iterdir()}
    for name in names:
        links = re.findall(r"https?://[^\s\"'`]+", (FOLDER / name).read_text())
        assert set(links) <= {"http://www.w3.org/2000/svg"}


def test_no_script_writes_html() -> None:
    for path in FOLDER.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text())
    assert not re.search(r"\son\w+=|style=|<script>", (FOLDER / "index.html").read_text())


# --- the stream ---


def test_the_first_event_is_whole_and_framed(shared: PageServer) -> None:
    reply = httpx.get(f"{shared.url}/events", trust_env=False, timeout=20)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    first = reply.text.split("\n\n")[0].split("\n")
    assert first[0] == "event: state" and re.fullmatch(r"id: \d+", first[1]) and first[2].startswith("data: {")
    body = json.loads(first[2].removeprefix("data: "))
    assert body.keys() == dict(shared.overview).keys()  # type: ignore[arg-type]
    assert reply.text.count("event: state") == 1, "nothing changed but the time"


def test_afterwards_only_what_changed_is_told(server: PageServer) -> None:
    with httpx.stream("GET", f"{server.url}/events", trust_env=False, timeout=20) as reply:
        events = told_by(reply.iter_lines())
        next(events)
        assert isinstance(server.overview, dict)
        news = [*server.overview["events"], line(9, 52, "paused", "learning paused: disk")]
        server.overview = {**server.overview, "events": news}
        name, body = next(events)
    assert name == "state" and body.keys() == {"at", "events"} and body["events"][-1]["kind"] == "paused"


def test_why_there_is_no_overview_is_told_and_then_all_of_it_again(server: PageServer) -> None:
    whole = server.overview
    server.overview = Unavailable("the console is not up (RayActorError); try again in a moment")
    with httpx.stream("GET", f"{server.url}/events", trust_env=False, timeout=20) as reply:
        events = told_by(reply.iter_lines())
        assert next(events) == ("away", {"message": str(server.overview)})
        server.overview = whole
        name, body = next((name, body) for name, body in events if name != "away")
    assert name == "state" and "slots" in body and "versions" in body


def test_viewers_share_one_poll_and_one_who_leaves_is_forgotten(server: PageServer) -> None:
    streams = [httpx.Client(trust_env=False, timeout=20) for _ in range(8)]
    replies = [client.send(client.build_request("GET", f"{server.url}/events"), stream=True) for client in streams]
    lines = [reply.iter_lines() for reply in replies]
    for each in lines:
        next(each)
    assert server.watching == 8
    before, started = server.polls, time.monotonic()
    assert until(lambda: server.polls >= before + 10)
    assert (time.monotonic() - started) / 10 >= 0.045, "eight viewers poll as often as one"
    for client in streams:
        client.close()
    assert until(lambda: server.watching == 0)
    assert until(lambda: not polled(server)), "nobody looks, and still somebody polls"


def polled(server: PageServer) -> bool:
    """Whether anybody polls within several periods."""
    before = server.polls
    return until(lambda: server.polls > before, wait_s=0.3)


# --- what it shows ---


def ref(version: int) -> PolicyRef:
    return PolicyRef(version=version)


def written(run_dir: Path) -> RunStore:
    """A run with one version, promoted on anchors."""
    store = RunStore(run_dir)
    published = Published(ref=ref(1), path="x", parent=ref(0), window=1, fingerprint="f")
    decision = Decision(
        verdict="promote",
        candidate=ref(1),
        champion=ref(0),
        reason="at most 0.03 worse [really]",
        probes=28,
        certified=False,
        candidate_rate=0.75,
        champion_rate=0.5,
    )
    detail = decision.model_dump(mode="json", exclude={"candidate", "champion"})
    store.write(
        [
            message("versions", "policy@v1", "policy@v0", published),
            message("decisions", "policy@v1", "policy@v0", decision),
            event(10.0, "evaluator", "weighing", version=1, champion=0),
            event(11.0, "versions", "decided", version=1, standing="guarded", **detail),
        ]
    )
    return store


class Part:
    """One that only has a status."""

    def __init__(self, **status: Any) -> None:
        self._status = status

    async def status(self) -> dict[str, Any]:
        return self._status


class Away:
    async def status(self) -> dict[str, Any]:
        raise Unavailable("not up")


def ports(**parts: Part) -> Ports:
    names = {"store": "store", "versions": "versions", "learning": "buffer", "feedback": "feedback"}
    names |= {"trainer": "trainer", "evaluator": "evaluator"}
    there: dict[str, Any] = {port: parts.get(name, Away()) for port, name in names.items()}
    return Ports(ballot=there["learning"], **there)


async def test_admin_gathers_statuses_and_the_run_directory(tmp_path: Path) -> None:
    written(tmp_path).close()
    slots = {"serve": 1, "explore": 1, "champion": 0, "candidate": None}
    replicas = {"b": {"serving": 1, "proven": [0, 1], "age_s": 1.0, "tokens_user": 5}, "a": {"age_s": 20.0}}
    parts = {
        "versions": Part(slots=slots, states={"1": "promoted"}, standing="guarded", held=None, replicas=replicas),
        "buffer": Part(paused="too hot", tokens=70, waiting=3, vote_share=0.123456),
        "evaluator": Part(tokens={"gate": 8, "explore": 1}, weighing={"candidate": 2, "champion": 0}),
    }
    shots = [{"role": "user", "content": "Is soup food?"}, {"role": "assistant", "content": "Soup is food."}]
    console = Admin(ports(**parts), 1, str(tmp_path), ManualClock(99.0), shots)
    shown = await console.overview()
    await console.stop()
    assert json.loads(json.dumps(shown)) == shown and shown["at"] == 99.0
    assert shown["slots"]["serve"] == {"version": 1, "state": "promoted", "standing": "guarded"}
    assert shown["slots"]["champion"]["standing"] == "base" and shown["slots"]["candidate"] is None
    one = shown["versions"][1]
    assert (one["verdict"], one["standing"], one["probes"]) == ("promote", "guarded", 28)
    assert (one["agreement"], one["champion_agreement"], one["accuracy"]) == (0.75, 0.5, None)
    assert one["monitors"] == {}
    assert shown["tokens"] == {"users": 5, "learning": 70, "gate": 8, "report": 0}
    assert (shown["paused"], shown["learning"]["vote_share"], shown["learning"]["weighing"]) == ("too hot", 0.123, 2)
    assert [(r["name"], r["silent"]) for r in shown["replicas"]] == [("a", True), ("b", False)]
    told_event = {"id": 2, "at": 11.0, "kind": "decided"}
    assert shown["events"] == [{**told_event, "text": "v1 promote (guarded): at most 0.03 worse [really]"}]
    assert shown["away"] == dict.fromkeys(("store", "feedback", "trainer"), "not up")
    assert shown["examples"] == shots


async def test_a_run_directory_that_cannot_be_read_leaves_the_rest_standing(tmp_path: Path) -> None:
    console = Admin(ports(buffer=Part(paused=None, waiting=3)), 1, str(tmp_path))
    shown = await console.overview()
    assert "run.sqlite" in shown["away"]["run directory"] and shown["learning"]["waiting"] == 3


def test_parts_that_are_away_leave_their_places_empty() -> None:
    shown = overview(1.0, {"versions": {"away": "no answer within 2.0 s"}, "buffer": {"away": "dead"}}, {})
    assert shown["away"] == {"versions": "no answer within 2.0 s", "buffer": "dead"}
    assert shown["slots"] == dict.fromkeys(("serve", "explore", "champion", "candidate"))


def test_the_past_is_read_again_when_something_happened(tmp_path: Path) -> None:
    store = written(tmp_path)
    past = Past(tmp_path)
    before = past.read()
    assert past.read() is before
    store.write([event(12.0, "buffer", "resumed")])
    assert past.read()["events"][-1] == {"id": 3, "at": 12.0, "kind": "resumed", "text": "learning has resumed"}
    past.close()
    store.close()


@pytest.mark.parametrize("reason", ["a [/b] tag that closes nothing", "[red]", "plain"])
def test_what_people_write_is_told_as_it_is(reason: str) -> None:
    """A reason such as `[/b]` was markup, and ended the terminal's view."""
    paused = Event(at=0.0, actor="buffer", kind="paused", detail={"reason": reason})
    assert sentence(paused) is not None
    assert sentences([(1, paused)])[0]["text"] == f"learning paused: {reason}"
