"""What dies or hangs comes back, a client that leaves frees its seat, and a killed run goes on where it was."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.messages import Decision
from core.store import RunReader
from tests.real.conftest import Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
Start = Callable[..., Run]
LONG = {"model": "policy", "prompt": "Tom has 5 apples.\n", "max_tokens": 400, "ignore_eos": True, "stream": True}
SETTINGS = ("learning.groups_per_window=96", "report.questions=null", "run.hang_s=12", "learning.plateau=null")


def until(what: str, run: Run, condition: Callable[[], bool], timeout_s: float = 240) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + timeout_s, f"no {what} in {timeout_s} s:\n{run.log.read_text()[-2000:]}"
        time.sleep(0.3)
    return time.monotonic() - started


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    reader = RunReader(run.dir)
    try:
        return [event.detail for event in reader.events(kind)]
    finally:
        reader.close()


def count(run: Run, table: str) -> int:
    reader = RunReader(run.dir)
    try:
        return reader.count(table)
    finally:
        reader.close()


def stream(url: str, seen: list[str]) -> None:
    with httpx.stream("POST", f"{url}/v1/completions", json=LONG, timeout=120, trust_env=False) as reply:
        seen += [line for line in reply.iter_lines() if line]


def test_what_hangs_is_named_and_started_again_and_a_killed_run_goes_on(start_run: Start) -> None:
    """One run through all of it: it costs half a minute to start."""
    run = start_run(*SETTINGS)
    http = httpx.Client(base_url=run.url, trust_env=False, timeout=60)
    until("promotion", run, lambda: run.status()["versions"]["slots"]["serve"] > 0)

    # a client that leaves in the middle of its answer frees its seat
    with http.stream("POST", "/v1/completions", json=LONG) as reply:
        next(reply.iter_lines())
    replicas = run.status()["versions"]["replicas"]
    until("free seat", run, lambda: all(r["users"] == 0 for r in run.status()["versions"]["replicas"].values()), 20)
    assert len(replicas) == 1

    # a trainer and a store that hang: noticed, named, replaced, and users never notice
    for title, part in (("ray::Trainer", "trainer"), ("ray::Store", "store")):
        run.those(title)[0].send_signal(signal.SIGSTOP)
        asked = http.post("/v1/completions", json={**LONG, "max_tokens": 8, "stream": False})
        assert asked.status_code == 200
        until(f"new {part}", run, lambda part=part: part in [e["part"] for e in events(run, "restarted")])
        until("event", run, lambda part=part: part in [e["part"] for e in events(run, "hung")], 30)

    # and learning goes on
    published = len(events(run, "published"))
    until("another version", run, lambda: len(events(run, "published")) > published)

    # everything killed at once: the run goes on with the same version, and nothing it had is gone
    status = run.status()
    held = status["buffer"]["accepted"] + status["buffer"]["filtered"]
    for process in run.family():
        process.kill()
    run.process.wait(30)
    started = time.monotonic()
    run.again()
    assert run.url != "" and time.monotonic() - started < 90
    until("status", run, lambda: "accepted" in run.status()["buffer"], 60)
    status = run.status()
    reader = RunReader(run.dir)
    promoted = [d.candidate.version for d in reader.all("decisions", Decision) if d.verdict == "promote"]
    drawn = [place for body in reader.facts("window:").values() for place in body["places"]]
    assert status["versions"]["slots"]["serve"] == max(promoted)
    assert status["buffer"]["accepted"] + status["buffer"]["filtered"] >= held
    assert status["buffer"]["outstanding"] <= status["buffer"]["leased"]
    assert len(drawn) == len(set(drawn)), "a prompt counted in two windows"
    published = len(events(run, "published"))
    until("a version after the resume", run, lambda: len(events(run, "published")) > published)
    drawn = [place for body in reader.facts("window:").values() for place in body["places"]]
    assert len(drawn) == len(set(drawn)), "a prompt counted in two windows"

    # SIGTERM lets a long answer end
    seen: list[str] = []
    user = threading.Thread(target=stream, args=(run.url, seen))
    user.start()
    until("first token", run, lambda: len(seen) > 0, 30)
    run.process.send_signal(signal.SIGTERM)
    user.join(60)
    assert seen[-1] == "data: [DONE]", seen[-1]
    last = json.loads(seen[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "length"
    run.process.wait(60)


def test_a_full_disk_stops_learning_and_not_serving_and_learning_goes_on_by_itself(
    start_run: Start, tmp_path: Path
) -> None:
    floor = shutil.disk_usage(tmp_path).free - 2 * 2**30
    if floor < 0:
        pytest.skip("this disk is full already")
    run = start_run(*SETTINGS, f"run.min_free_bytes={floor}")
    http = httpx.Client(base_url=run.url, trust_env=False, timeout=60)
    until("outcomes", run, lambda: run.status()["buffer"].get("accepted", 0) > 10)
    ballast = tmp_path / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3 * 2**30)
    until("standstill", run, lambda: run.status()["store"]["full"] is not None, 60)
    time.sleep(5)
    held = count(run, "outcomes")
    for _ in range(5):
        time.sleep(1)
        asked = http.post("/v1/completions", json={**LONG, "max_tokens": 8, "stream": False})
        assert asked.status_code == 200
    assert count(run, "outcomes") == held
    ballast.unlink()
    until("room", run, lambda: count(run, "outcomes") > held, 90)
    (event,) = events(run, "disk_full")
    assert event["seconds"] > 5
    assert not events(run, "hung")


def test_a_replica_whose_engine_hangs_is_replaced(start_run: Start) -> None:
    run = start_run(*SETTINGS, "serve.replicas=2")
    http = httpx.Client(base_url=run.url, trust_env=False, timeout=60)
    engines = run.those("VLLM::EngineCore")
    assert len(engines) == 2
    engines[0].send_signal(signal.SIGSTOP)
    before = {engine.pid for engine in engines}

    def replaced() -> bool:
        now = {p.pid for p in run.those("VLLM::EngineCore")}
        return len(now - before) == 1 and engines[0].pid not in now

    until("new engine", run, replaced)
    until("two replicas", run, lambda: len(run.status()["versions"]["replicas"]) == 2, 120)
    assert http.post("/v1/completions", json={**LONG, "max_tokens": 8, "stream": False}).status_code == 200
