"""One sample's life, by any id, through every actor's events."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.cli.main import app
from actors.inspect.timeline import timeline
from actors.inspect.trace import trace
from core.errors import Missing
from core.messages import Outcome, Response, Vote
from core.store.writer import RunReader
from tests.pure.actors.people.test_feedback import answer, parse, running, told

QUESTION = "What is 40 and 2?"
WAY = ["answered", "leased", "explored", "drawn", "training", "published", "proven", "weighing", "decided"]


async def lived(folder: Path) -> AsyncIterator[None]:
    async with running(folder) as system:
        await system.feedback.answered([answer("r1", QUESTION, ("The answer is 42.",), key="shop")])
        await told(system, parse({"id": "1", "response_id": "r1", "binary": True, "user": "ann"}), "shop", False)
        async with asyncio.timeout(60):
            while "decided" not in [step["what"] for step in trace(RunReader(folder), "r1")["life"]]:
                await asyncio.sleep(0.05)
        yield


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A run in which a question was asked, voted on, explored, learned from, and its version decided."""
    async for _ in lived(tmp_path):
        pass
    return tmp_path


def ids(reader: RunReader) -> dict[str, str]:
    """One id of every kind, all of the same life."""
    response = reader.get("responses", Response, "r1")
    assert response is not None and response.prompt is not None
    (place,) = reader.ids("outcomes", response.prompt.id)
    outcome = reader.outcome(int(place))
    assert outcome is not None
    sampled = outcome.scored[0].group
    vote = next(v for v in reader.children("votes", Vote, response.prompt.id) if v.by == "sample")
    return {
        "response": "r1",
        "feedback": "1",
        "prompt": response.prompt.id,
        "vote": vote.id,
        "place": f"place:{place}",
        "group": sampled.id,
        "candidate": sampled.candidates[0].id,
        "example": outcome.examples[0].id,
    }


async def test_every_id_of_a_life_leads_through_all_of_it(folder: Path) -> None:
    reader = RunReader(folder)
    for kind, id in ids(reader).items():
        found = trace(reader, id)
        assert found["is"] == kind, id
        steps = [step["what"] for step in found["life"]]
        assert [step for step in steps if step in WAY][: len(WAY)] == WAY, (kind, steps)
        times = [step["at"] for step in found["life"] if step["at"] is not None]
        assert times == sorted(times) and min(times) > 0
        assert {"feedback", "buffer", "collector", "trainer", "versions", "evaluator"} <= {
            s["by"] for s in found["life"]
        }
        assert found["explored"][0]["versions"]


async def test_each_step_says_what_came_of_it(folder: Path) -> None:
    found = trace(RunReader(folder), "r1")
    steps: dict[str, dict[str, Any]] = {}
    for step in found["life"]:
        steps.setdefault(step["what"], step)
    assert steps["voted"]["voter"] == "shop/ann" and steps["voted"]["response"] == "r1"
    assert steps["leased"]["lease"] and steps["leased"]["at"] is None
    (group,) = [g for g in steps["explored"]["groups"] if g["by"] == "sample"]
    assert (
        group["winner"] == found["explored"][0]["winners"][0] and 0 <= group["version"] < steps["published"]["version"]
    )
    version = steps["published"]["version"]
    assert steps["drawn"]["window"] == steps["training"]["window"] and steps["decided"]["version"] == version
    assert steps["decided"]["verdict"] in ("promote", "reject", "hold") and steps["decided"]["reason"]


async def test_a_lease_of_one_place_is_an_id_too_and_of_several_names_them(folder: Path) -> None:
    reader = RunReader(folder)
    leases: dict[str, list[Outcome]] = {}
    for outcome in reader.briefs():
        leases.setdefault(outcome.lease_id, []).append(outcome)
    for lease, outcomes in leases.items():
        if len({outcome.prompt_id for outcome in outcomes}) == 1:
            assert trace(reader, lease)["is"] == "lease"
        else:
            with pytest.raises(Missing, match=f"several prompts; trace one of them: place:{outcomes[0].place}"):
                trace(reader, lease)


async def test_the_command_prints_it_as_json(folder: Path) -> None:
    (folder / "config.yaml").touch()
    done = CliRunner().invoke(app, ["trace", "r1", "--dir", str(folder)])
    assert done.exit_code == 0 and json.loads(done.stdout)["is"] == "response"


async def test_a_prompt_that_was_never_explored_has_a_short_life(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1", QUESTION, ("The answer is 42.",))])
        await system.feedback.answered([answer("r2", messages=None)])
        found = trace(RunReader(tmp_path), "r1")
        assert [step["what"] for step in found["life"]] == ["answered"] and found["explored"] == []
        assert trace(RunReader(tmp_path), "r2")["prompt"] is None
        prompt = found["prompt"]
        assert timeline(RunReader(tmp_path), prompt, (), ()) == []
