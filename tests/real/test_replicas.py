"""Two policy replicas, one of them lost and replaced: a late joiner proves what is served before it answers."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from core.messages import Decision
from core.store import RunReader
from tests.real.conftest import Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
BODY = {"model": "policy", "messages": [{"role": "user", "content": "Tom has 5 apples."}], "max_tokens": 8}


def until(what: str, run: Run, condition: Callable[[], bool], timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s:\n{run.log.read_text()[-2000:]}"
        time.sleep(0.5)


def test_a_replica_that_joins_late_answers_with_the_served_version_only(start_run: Callable[..., Run]) -> None:
    run = start_run("serve.replicas=2", "learning.groups_per_window=96", "report.questions=null")
    http = httpx.Client(base_url=run.url, trust_env=False, timeout=60)
    assert len(run.those("ray::ServeReplica")) == 2
    until("promotion", run, lambda: run.status()["versions"]["slots"]["serve"] > 0)
    until(
        "proof in both",
        run,
        lambda: {r["serving"] > 0 for r in run.status()["versions"]["replicas"].values()} == {True},
    )
    http.post("/admin/pause", json={})
    served = run.status()["versions"]["slots"]["serve"]
    before = set(run.status()["versions"]["replicas"])
    run.those("ray::ServeReplica")[0].kill()
    seen: set[str] = set()

    def joined() -> bool:
        try:
            reply = http.post("/v1/chat/completions", json=BODY)
        except httpx.TransportError:  # the connection died with the replica; a client tries again
            return False
        if reply.status_code == 200:
            seen.add(reply.headers["x-policy-version"])
        fresh = set(run.status()["versions"]["replicas"]) - before
        return bool(fresh)

    until("late joiner", run, joined)
    for _ in range(20):
        seen.add(http.post("/v1/chat/completions", json=BODY).headers["x-policy-version"])
    promoted = {
        str(d.candidate.version) for d in RunReader(run.dir).all("decisions", Decision) if d.verdict == "promote"
    }
    assert seen <= promoted, "an answer by a version that was never promoted"
    assert min(map(int, seen)) >= served, "an answer by an older version than the one served"

    # an engine dies under load: every request that has no token yet is answered by the other replica
    with ThreadPoolExecutor(8) as users:
        stop_at = time.monotonic() + 8
        asking = [users.submit(ask_until, run.url, stop_at) for _ in range(8)]
        time.sleep(2)
        run.those("VLLM::EngineCore")[0].kill()
        statuses = Counter(status for user in asking for status in user.result())
    assert set(statuses) == {200} and statuses[200] > 8, statuses


def ask_until(url: str, stop_at: float) -> list[int | str]:
    """Whole answers, one after the other; each is a status, or how the connection failed."""
    seen: list[int | str] = []
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        while time.monotonic() < stop_at:
            try:
                reply = http.post("/v1/chat/completions", json=BODY | {"max_tokens": 40, "ignore_eos": True})
                whole = reply.status_code != 200 or reply.json()["usage"]["completion_tokens"] == 40
                seen.append(reply.status_code if whole else "cut short")
            except httpx.TransportError as error:
                seen.append(repr(error))
    return seen
