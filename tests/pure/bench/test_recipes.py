"""What `bench recipes` concludes from a run's directory, and what its simulated person says."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

from bench.recipes import feedback, outcome, settings_of
from core.config import load
from methods import recipes


def test_a_run_that_was_decided_tells_its_verdicts(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    rows = [{"version": 0, "verdict": "base", "reason": ""}, {"version": 1, "verdict": "reject", "reason": "worse"}]
    body = {"accuracy_start": 0.3, "accuracy_end": 0.3, "tokens_generated": 9, "cpu_s": 1.0, "versions": rows}
    (tmp_path / "run" / "report.json").write_text(json.dumps(body))
    found = outcome(tmp_path, 0)
    assert (found["ended"], found["verdicts"], found["why"], found["accuracy_end"]) == (
        "decided",
        ["v1 reject"],
        "worse",
        0.3,
    )


def test_a_run_that_stopped_tells_why(tmp_path: Path) -> None:
    (tmp_path / "up.log").write_text("starting\nerror learning stopped after 0 of 1 versions: too little\nstopping\n\n")
    assert outcome(tmp_path, 1) == {"ended": "error learning stopped after 0 of 1 versions: too little"}
    (tmp_path / "up.log").write_text("")
    assert outcome(tmp_path, -15) == {"ended": "[]"}


def test_every_recipe_gets_its_own_overrides_and_a_config_that_loads() -> None:
    options = argparse.Namespace(versions=1, seed=0)
    for name in recipes.names():
        settings = settings_of(name, options)
        assert set(recipes.card(name).overrides) <= set(settings)
        assert load("configs/tiny.yaml", settings).method.recipe == name


async def test_a_person_marks_prefers_and_corrects() -> None:
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        texts = ("1+1=3. The answer is 3.", "1+1=2. The answer is 2.")
        choices = [{"message": {"content": text}} for text in texts]
        return httpx.Response(200, json={"id": "r", "choices": choices} if "messages" in sent[-1] else [])

    problem = SimpleNamespace(question="1+1?", answer=2, solutions=["1+1=2. The answer is 2."])
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await feedback(client, "http://run", problem, lambda text: text.rstrip(".").split()[-1])
    asked, said = sent
    assert asked["n"] == 2 and asked["messages"][0]["content"] == "1+1?"
    assert [(one.get("binary"), one.get("choice")) for one in said[:2]] == [(False, 0), (True, 1)]
    assert said[2]["choice"] == 1 and said[2]["better_than"] == {"response_id": "r", "choice": 0}
    assert said[3]["correction"] == "1+1=2. The answer is 2." and said[3]["user"] == "teacher"
