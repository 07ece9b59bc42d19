"""The whole system in one process: the same actors as on Ray, a scripted policy, a scripted training session."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.in_process import LocalSystem, ScriptedSession
from core import config as configuration
from core.config import Config
from core.errors import MismatchError
from core.messages import Decision, PolicyRef, Published, Vote, Window
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer


def settings(folder: Path, *overrides: str) -> Config:
    """Questions whose right answers only the scripted policy and the anchors know."""
    pool = [f"pool question {i}" for i in range(400)]
    probes = [f"probe question {i}" for i in range(600)]
    pq.write_table(pa.table({"prompt": pool}), folder / "pool.parquet")
    answers = [right_answer(as_prompt(probe)) for probe in probes]
    pq.write_table(pa.table({"prompt": probes, "answer": answers}), folder / "anchors.parquet")
    base = [
        f"prompts.path={folder}/pool.parquet",
        f"gate.anchors={folder}/anchors.parquet",
        "report.questions=null",
        "learning.groups_per_window=32",
        "gate.batch=64",
    ]
    return configuration.load(None, [*base, *overrides])


def system(folder: Path, config: Config, accuracy: dict[int, float], seconds: float = 0.0) -> LocalSystem:
    return LocalSystem(config, folder, ScriptedPolicy(0, accuracy), ScriptedSession(folder, seconds))


def verdicts(folder: Path) -> dict[int, str]:
    return {d.candidate.version: d.verdict for d in RunReader(folder).all("decisions", Decision)}


async def test_a_better_version_is_promoted_and_a_worse_one_is_not(tmp_path: Path) -> None:
    config = settings(tmp_path)
    run = system(tmp_path, config, {0: 0.3, 1: 0.6, 2: 0.3, 3: 0.6, 4: 0.6})
    await run.run(decided=2)
    assert verdicts(tmp_path)[1] == "promote"
    assert verdicts(tmp_path)[2] == "reject"
    status = await run.versions.people.status()
    assert status["slots"]["serve"] == 1
    assert status["slots"]["champion"] == 1


async def test_every_vote_and_example_of_a_drawn_window_is_on_disk(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1")
    run = system(tmp_path, config, {0: 0.6, 1: 0.9})
    await run.run(decided=1)
    reader = RunReader(tmp_path)
    outcomes = list(reader.outcomes())
    assert len(outcomes) == 32
    assert reader.count("votes") == 32 * config.method.sampler.n
    assert sum(len(o.examples) for o in outcomes) == reader.count("examples") > 0
    assert all(vote.by == "sample" for vote in reader.all("votes", Vote))


async def test_a_restart_takes_up_where_the_run_was(tmp_path: Path) -> None:
    accuracy = {0: 0.3, **dict.fromkeys(range(1, 12), 0.6)}
    first = system(tmp_path, settings(tmp_path), accuracy)
    await first.run(decided=1)
    served = (await first.versions.people.status())["slots"]["serve"]
    second = system(tmp_path, settings(tmp_path), accuracy)
    await second.run(decided=3)
    reader = RunReader(tmp_path)
    places = [place for places in reader.windows().values() for place in places]
    assert len(places) == len(set(places)), "a prompt was new in two windows"
    published = [version.ref.version for version in reader.versions()]
    assert len(published) == len(set(published))
    assert sorted(v.window for v in reader.versions()) == list(range(1, len(published) + 1))
    assert served == 1
    assert (await second.versions.people.status())["slots"]["champion"] == 1


async def test_collecting_training_and_weighing_overlap(tmp_path: Path) -> None:
    config = settings(tmp_path, "collect.in_flight=4")
    policy = ScriptedPolicy(0, {0: 0.3, **dict.fromkeys(range(1, 9), 0.6)}, latency_s=0.002)
    run = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path, seconds=0.1))
    await run.run(decided=3)
    events = RunReader(tmp_path).events()
    trained = [(e.at, e.detail["version"]) for e in events if e.kind == "training"]
    published = {e.detail["version"]: e.at for e in events if e.kind == "published"}
    drawn = [e.at for e in events if e.kind == "drawn"]
    began, version = trained[1]
    assert any(began <= at for at in drawn[1:]) and published[version] > began


class RefusingRoom(ScriptedSession):
    """Its engine is another model, until somebody mends it."""

    mended = False

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        if not self.mended:
            raise MismatchError("engine and trainer differ by 9 nats")
        published = super().make(window, ref, parent, rest, lr_scale)
        return published.model_copy(update={"stats": {"mismatch_kl": 0.25}})


async def test_a_mismatch_pauses_learning_and_the_window_is_tried_again_when_resumed(tmp_path: Path) -> None:
    session = RefusingRoom(tmp_path)
    run = LocalSystem(
        settings(tmp_path, "run.versions=1"), tmp_path, ScriptedPolicy(0, {0: 0.3, 1: 0.9, 2: 0.9}), session
    )
    running = asyncio.create_task(run.run(decided=1))
    async with asyncio.timeout(20):
        while (await run.buffer.learning.status())["paused"] is None:
            await asyncio.sleep(0.02)
    assert (await run.buffer.learning.status())["paused"] == "engine and trainer differ by 9 nats"
    assert ("learning_paused", 1, {}) in run.sink.records
    session.mended = True
    await run.buffer.learning.resume()
    assert [value for name, value, _ in run.sink.records if name == "learning_paused"][-1] == 0
    await running
    events = RunReader(tmp_path).events()
    assert [e.detail["window"] for e in events if e.kind == "refused"] == [1]
    assert [published.window for published in RunReader(tmp_path).versions()] == [1]
    assert ("mismatch_kl", 0.25, {}) in run.sink.records


async def test_without_anchors_every_candidate_is_held(tmp_path: Path) -> None:
    config = settings(tmp_path, "gate.anchors=null")
    run = system(tmp_path, config, {0: 0.3, 1: 0.9, 2: 0.9, 3: 0.9})
    await run.run(decided=2)
    assert set(verdicts(tmp_path).values()) == {"hold"}
    assert (await run.versions.people.status())["slots"]["serve"] == 0


async def test_learning_pauses_on_a_plateau(tmp_path: Path) -> None:
    config = settings(tmp_path, "learning.plateau.versions=2", "gate.max_probes=200")
    run = system(tmp_path, config, dict.fromkeys(range(12), 0.6))
    await run.run(decided=2, until_paused=True)
    assert "no gain" in (await run.buffer.learning.status())["paused"]


@pytest.mark.parametrize("recipe", ["lmsi", "unvoted"])
async def test_leases_are_all_accounted_for(tmp_path: Path, recipe: str) -> None:
    run = system(tmp_path, settings(tmp_path, f"method.recipe={recipe}"), {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})
    await run.run(decided=1)
    s = await run.buffer.learning.status()
    assert s["leased"] == s["accepted"] + s["filtered"] + s["failed"] + s["expired"] + s["outstanding"]
