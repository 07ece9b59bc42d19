"""Processes that die or hang are restarted, and users get no errors. A killed run resumes where it was. A run that is
told to stop first finishes the answers in progress.

The tests share one run with two replicas, in order. Each test starts after the run has recovered from the one before.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench._live import is_alive, kill_all, whole
from core.messages import Decision, Vote
from core.store.facts import Measured
from core.store.writer import RunReader
from tests.real.conftest import Run, bench

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
SHORT: dict[str, Any] = {
    "model": "policy",
    "messages": [{"role": "user", "content": "Tom has 5 apples."}],
    "max_tokens": 8,
}
LONG: dict[str, Any] = {
    "model": "policy",
    "prompt": "Tom has 5 apples.\n",
    "max_tokens": 400,
    "ignore_eos": True,
    "stream": True,
}
LONG_CHAT = {**{name: value for name, value in LONG.items() if name != "prompt"}, "messages": SHORT["messages"]}
HANG_S, STOP_S, EXIT_S = 12, 30, 10
SETTINGS = (
    "serve.replicas=2",
    "learning.groups_per_window=64",
    "learning.replay_windows=2",  # else the windows grow, and with them the wait for a version
    "learning.plateau=null",
    f"run.hang_s={HANG_S}",
    f"run.stop_timeout_s={STOP_S}",
    "run.cpu_share=0.8",
)
ROOM, BALLAST = 4 * 2**30, 5 * 2**30
"""ROOM: bytes that the run may still write. BALLAST: more than that."""


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Free bytes that must remain on the disk; 0 if it is almost full already."""
    return max(0, shutil.disk_usage(tmp_path_factory.getbasetemp()).free - ROOM)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, floor: int) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("supervision")
    settings = (*SETTINGS, f"run.min_free_bytes={floor}", f"report.questions={folder}/deleted.parquet")
    run = Run(folder, *settings)
    try:
        yield run
    finally:
        run.kill()


@pytest.fixture
def run(started: Run) -> Run:
    until("whole run", started, lambda: whole(asked(started)))
    until("promotion", started, lambda: started.status()["versions"]["slots"]["serve"] > 0)
    return started


@pytest.fixture
def http(run: Run) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=run.url, trust_env=False, timeout=60) as client:
        yield client


def until(what: str, run: Run, condition: Callable[[], Any], timeout_s: float = 240) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout_s, f"no {what} in {timeout_s} s:\n{run.log.read_text()[-2000:]}"
        time.sleep(0.3)
    return time.monotonic() - started


def asked(run: Run) -> dict[str, Any] | None:
    """The status of the run; None while no process answers."""
    try:
        reply = httpx.get(f"{run.url}/status", timeout=30, trust_env=False)
        return reply.json() if reply.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    with closing(RunReader(run.dir)) as reader:
        return [event.detail for event in reader.events(kind)]


def count(run: Run, table: str) -> int:
    with closing(RunReader(run.dir)) as reader:
        return reader.count(table)


def promoted(run: Run) -> list[int]:
    with closing(RunReader(run.dir)) as reader:
        return [d.candidate.version for d in reader.all("decisions", Decision) if d.verdict == "promote"]


def drawn(run: Run) -> list[int]:
    """The places of all windows."""
    with closing(RunReader(run.dir)) as reader:
        return [place for places in reader.windows().values() for place in places]


def answered(http: httpx.Client) -> bool:
    return http.post("/v1/completions", json={**LONG, "max_tokens": 8, "stream": False}).status_code == 200


def test_with_every_answer_key_deleted_versions_are_promoted_all_the_same_and_none_is_measured(run: Run) -> None:
    assert promoted(run)
    with closing(RunReader(run.dir)) as reader:
        assert reader.events("proven") and not reader.read_all(Measured)


def test_a_replica_dies_and_no_feedback_is_counted_twice_and_the_next_answers_with_what_is_served(
    run: Run, http: httpx.Client
) -> None:
    assert len(run.those("ray::ServeReplica")) == 2
    until("proof in both", run, lambda: all(r["serving"] > 0 for r in replicas(run).values()))
    http.post("/admin/pause", json={})
    served, before = run.status()["versions"]["slots"]["serve"], set(replicas(run))
    with ThreadPoolExecutor(8) as people:
        liked = list(people.map(lambda _: ask(run.url), range(8)))
        until("their answers on disk", run, lambda: count(run, "responses") >= 8, 20)
        (store,) = run.those("ray::Store")
        store.suspend()  # feedback is then received but not acknowledged when its replica dies
        said = [people.submit(like, run.url, answer) for answer in liked]
        time.sleep(2)
        assert not any(each.done() for each in said)
        run.those("ray::ServeReplica")[0].kill()
        time.sleep(1)
        store.resume()
        results = Counter(each.result() for each in said)
    assert set(results) <= {"counted", "waiting", "duplicate"} and results["duplicate"] > 0, "none was sent twice"
    with closing(RunReader(run.dir)) as reader:
        assert Counter(v.response_id for v in reader.all("votes", Vote) if v.by == "person") == Counter(liked)
        assert reader.count("feedback") == len(liked)

    seen: set[str] = set()

    def joined() -> bool:
        with suppress(httpx.TransportError):  # the connection broke when the replica died; a client retries
            reply = http.post("/v1/chat/completions", json=SHORT)
            seen.update([reply.headers["x-policy-version"]] if reply.status_code == 200 else [])
        return bool(set(replicas(run)) - before)

    until("late joiner", run, joined)
    for _ in range(20):
        seen.add(http.post("/v1/chat/completions", json=SHORT).headers["x-policy-version"])
    assert {int(version) for version in seen} <= set(promoted(run)), "a version that was never promoted answered"
    assert min(map(int, seen)) >= served, "an older version than the served one answered"
    http.post("/admin/resume", json={}).raise_for_status()


def replicas(run: Run) -> dict[str, dict[str, Any]]:
    told = run.status()["versions"]["replicas"]
    return {name: replica for name, replica in told.items() if is_alive(name)}


def ask(url: str) -> str:
    """Ask a question; returns the id of the answer, which is whole: a like of a part of an answer is no vote."""
    question = [{"role": "user", "content": "Tom has 5 apples. He buys 3 apples. How many apples does Tom have now?"}]
    body = {"model": "policy", "messages": question, "max_tokens": 100}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    return reply.raise_for_status().json()["id"]


def like(url: str, response: str) -> str:
    """Send a like; returns its result."""
    said = {"response_id": response, "binary": True}  # without an id for the feedback
    reply = httpx.post(f"{url}/v1/feedback", json=said, timeout=60, trust_env=False)
    return reply.json()["results"][0]["result"] if reply.is_success else f"status {reply.status_code}"


def test_an_engine_dies_under_load_and_whoever_has_no_token_yet_is_answered_by_the_other(run: Run) -> None:
    with ThreadPoolExecutor(8) as users:
        stop_at = time.monotonic() + 8
        asking = [users.submit(ask_until, run.url, stop_at) for _ in range(8)]
        time.sleep(2)
        run.those("VLLM::EngineCore")[0].kill()
        statuses = Counter(status for user in asking for status in user.result())
    assert set(statuses) == {200} and statuses[200] > 8, statuses


def ask_until(url: str, stop_at: float) -> list[int | str]:
    """Ask in sequence until `stop_at`. Returns the status of each reply, "cut short", or the connection error."""
    seen: list[int | str] = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        while time.monotonic() < stop_at:
            try:
                reply = http.post("/v1/chat/completions", json=SHORT | {"max_tokens": 16, "ignore_eos": True})
                complete = reply.status_code != 200 or reply.json()["usage"]["completion_tokens"] == 16
                seen.append(reply.status_code if complete else "cut short")
            except httpx.TransportError as error:
                seen.append(repr(error))
    return seen


def test_without_any_replica_users_wait_or_are_told_to_try_again(run: Run, http: httpx.Client) -> None:
    kill_all(run.those("ray::ServeReplica"))
    refused: list[httpx.Response] = []

    def answers() -> bool:
        try:
            reply = http.post("/v1/completions", json={**LONG, "max_tokens": 8, "stream": False})
        except httpx.TransportError:  # the request was in progress when its replica died
            return False
        if reply.status_code != 200:
            refused.append(reply)
        return reply.status_code == 200

    until("replica", run, answers)
    assert {(reply.status_code, reply.headers.get("retry-after")) for reply in refused} <= {(503, "1")}


def test_a_client_that_leaves_in_the_middle_of_its_answer_ends_it_and_frees_its_seat(
    run: Run, http: httpx.Client
) -> None:
    def told(name: str) -> int:
        return sum(int(replica[name]) for replica in replicas(run).values())

    given = told("tokens_user")
    for path, answer in (("/v1/completions", LONG), ("/v1/chat/completions", LONG_CHAT)):
        with http.stream("POST", path, json=answer) as reply:
            next(reply.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            http.post(path, json=answer | {"stream": False}, timeout=0.5)
    time.sleep(15)  # long enough for each answer to finish if it were not aborted
    assert told("users") == 0
    assert told("tokens_user") - given < LONG["max_tokens"]


def test_what_hangs_is_named_and_started_again_and_learning_goes_on(run: Run, http: httpx.Client) -> None:
    """A trainer, an engine and a store hang; users get answers all the time."""
    run.those("ray::Trainer")[0].suspend()
    assert answered(http)
    engines = run.those("VLLM::EngineCore")
    assert len(engines) == 2
    engines[0].suspend()
    named(run, "trainer")
    before = {engine.pid for engine in engines}

    def replaced() -> bool:
        now = {process.pid for process in run.those("VLLM::EngineCore")}
        return len(now - before) == 1 and engines[0].pid not in now

    until("new engine", run, replaced)
    until("two replicas", run, lambda: len(replicas(run)) == 2, 120)
    run.those("ray::Store")[0].suspend()
    assert answered(http)
    named(run, "store")
    published = len(events(run, "published"))
    until("another version", run, lambda: len(events(run, "published")) > published)


def named(run: Run, part: str) -> None:
    until(f"new {part}", run, lambda: part in [e["part"] for e in events(run, "restarted")])
    until("event", run, lambda: part in [e["part"] for e in events(run, "hung")], 30)


def test_votes_by_the_thousand_are_all_on_disk_once(run: Run, tmp_path: Path) -> None:
    found = bench("votes", "--run", str(run.dir), "--out", str(tmp_path))
    assert found["sent"] > 5000 and found["durable"] == found["sent"] and found["doubled"] == 0
    assert found["single_votes_per_s"] > 0 and found["collector_tokens_meanwhile"] > 0


def test_nothing_is_lost_when_processes_are_killed(run: Run, tmp_path: Path) -> None:
    found = bench("crash", "--run", str(run.dir), "--out", str(tmp_path))
    assert found["kills"] == 4 and found["votes_acknowledged"] > 0 and found["samples_acknowledged"] > 0
    assert (found["lost"], found["duplicated"], found["unpromoted_answers"]) == (0, 0, 0)


def test_a_full_disk_stops_learning_and_not_serving_and_learning_goes_on_by_itself(
    run: Run, http: httpx.Client, floor: int, tmp_path: Path
) -> None:
    if floor == 0:
        pytest.skip("this disk is full already")
    hung = len(events(run, "hung"))
    accepted = run.status()["buffer"]["accepted"]
    until("outcomes", run, lambda: run.status()["buffer"].get("accepted", 0) > accepted + 10)
    ballast = tmp_path / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST)
    until("standstill", run, lambda: run.status()["store"]["full"] is not None, 60)
    time.sleep(5)
    held = count(run, "outcomes")
    for _ in range(5):
        time.sleep(1)
        assert answered(http)
    assert count(run, "outcomes") == held
    ballast.unlink()
    until("room", run, lambda: count(run, "outcomes") > held, 90)
    (event,) = events(run, "disk_full")
    assert event["seconds"] > 5
    assert len(events(run, "hung")) == hung


def test_the_server_of_all_engines_dies_and_its_replicas_come_back_without_it(run: Run, http: httpx.Client) -> None:
    (server,) = [p for p in psutil.Process(run.process.pid).children() if "import serve_forks" in " ".join(p.cmdline())]
    before = {process.pid for process in run.those("ray::ServeReplica")}
    server.kill()
    until("replicas that died with it", run, lambda: not before & {p.pid for p in run.those("ray::ServeReplica")})
    until("all replicas", run, lambda: whole(asked(run)))
    until("an answer", run, lambda: answered(http), 30)  # the gateway learns of a new replica seconds later


def test_a_run_whose_every_process_is_killed_goes_on_with_what_it_had(run: Run) -> None:
    status = run.status()
    held = status["buffer"]["accepted"] + status["buffer"]["filtered"]
    kill_all(run.family())
    run.process.wait(30)
    started = time.monotonic()
    run.again()
    assert run.url != "" and time.monotonic() - started < 180  # 40 s alone on the machine, 94 s beside other work
    until("status", run, lambda: "accepted" in run.status()["buffer"], 60)
    status = run.status()
    assert status["versions"]["slots"]["serve"] == max(promoted(run))
    assert status["buffer"]["accepted"] + status["buffer"]["filtered"] >= held
    assert status["buffer"]["outstanding"] <= status["buffer"]["leased"]
    assert len(drawn(run)) == len(set(drawn(run))), "a prompt is in two windows"
    published = len(events(run, "published"))
    until("a version after the resume", run, lambda: len(events(run, "published")) > published)
    assert len(drawn(run)) == len(set(drawn(run))), "a prompt is in two windows"


def test_a_run_that_is_told_to_stop_ends_a_long_answer_first_whoever_looks_at_its_page(run: Run) -> None:
    url, chat, page = run.url, list[str](), list[str]()
    users = [threading.Thread(target=stream, args=(url, chat)), threading.Thread(target=look_on, args=(url, page))]
    users[1].start()
    until("the page's first event", run, lambda: page, 30)
    users[0].start()
    until("first token", run, lambda: chat, 30)
    family = run.family()
    run.process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    assert chat[-1] != "data: [DONE]", "the answer ended before the run was told to stop"
    users[0].join(60)
    assert chat[-1] == "data: [DONE]", chat[-1]
    last = json.loads(chat[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length"
    run.process.wait(60)
    assert time.monotonic() - told < STOP_S + EXIT_S
    users[1].join(10)
    assert not users[1].is_alive()
    left = psutil.wait_procs(family, timeout=10)[1]
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def stream(url: str, seen: list[str]) -> None:
    with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=120, trust_env=False) as reply:
        for line in reply.iter_lines():
            seen += [line] if line else []


def look_on(url: str, seen: list[str]) -> None:
    """Read the event stream as the page does: reconnect when it ends, until the run is gone."""
    with suppress(httpx.HTTPError):
        while True:
            with httpx.stream("GET", f"{url}/events", timeout=30, trust_env=False) as reply:
                reply.raise_for_status()
                for line in reply.iter_lines():
                    seen += [line] if line else []
