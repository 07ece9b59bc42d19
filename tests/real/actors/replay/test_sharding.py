"""A run of two shards on Ray: two stores and two buffers learn one version together, and both files hold their part."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from actors.evaluate.evaluator import ACCURACY
from core.messages import Decision
from core.store.shards import shard_of
from core.store.writer import RunReader
from tests.real.conftest import ROOT, Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
SHARDS = 2
SMALL = ("learning.groups_per_window=96", "report.per_version=120", "report.final=240", "gate.max_probes=400")


def test_two_shards_learn_one_version_and_lose_nothing_when_one_of_their_stores_dies(tmp_path: Path) -> None:
    run = Run(tmp_path, "--versions", "1", f"run.shards={SHARDS}", *SMALL)
    try:
        with httpx.Client(base_url=run.url, trust_env=False, timeout=60) as http:
            ids = [ask(http, number) for number in range(4)]
            said = [{"id": f"vote-{n}", "response_id": id, "binary": True} for n, id in enumerate(ids)]
            kept = http.post("/v1/feedback", json=said).raise_for_status().json()["results"]
        assert len(kept) == len(said)
        stores = run.those("ray::Store")
        assert len(stores) == len(run.those("ray::Buffer")) == SHARDS
        stores[-1].kill()
        run.wait(400)
    finally:
        run.kill()

    files = [run.dir / "run.sqlite", run.dir / "run-1.sqlite"]
    with closing(RunReader(run.dir)) as reader:
        assert reader.shards == SHARDS
        assert 1 in {decision.candidate.version for decision in reader.all("decisions", Decision)}
        assert any(event.detail["part"].startswith("store") for event in reader.events("restarted"))
        assert {result["id"] for result in kept} <= set(reader.ids("feedback"))
        places = [place for window in reader.windows().values() for place in window]
        assert len(places) == len(set(places)), "a prompt counted in two windows"
        voted = {prompt for outcome in reader.outcomes() if (prompt := outcome.prompt_id)}
        assert reader.facts(ACCURACY)
    assert {shard_of(prompt, SHARDS) for prompt in voted} == set(range(SHARDS))
    counts = []
    for file in files:
        with closing(sqlite3.connect(file)) as db:
            counts.append(db.execute("select count(*) from outcomes").fetchone()[0])
    assert min(counts) >= 48, counts
    command = [sys.executable, "-m", "actors.cli", "versions", "--dir", str(run.dir)]
    assert "v1" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


def ask(http: httpx.Client, number: int) -> str:
    question = f"Tom has {number + 2} apples. He buys 3 apples. How many apples does Tom have?"
    body = {"model": "policy", "messages": [{"role": "user", "content": question}], "max_tokens": 40}
    return http.post("/v1/chat/completions", json=body).raise_for_status().json()["id"]
