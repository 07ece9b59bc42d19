"""Tasks that a run does not learn: asked of the base and of what is served, once each, and told with what was lost."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli import preflight
from actors.evaluate.other_tasks import OtherTasks
from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect import report
from actors.inspect.sentences import sentence
from actors.inspect.task_changes import changes
from core import config as configuration
from core.clock import ManualClock
from core.config import Config
from core.errors import ConfigError, Unavailable
from core.messages import Candidate, PolicyRef, Prompt, Sampling
from core.metrics import Metrics
from core.store.facts import OtherMeasured
from core.store.writer import RunReader
from methods.data.other_tasks import other_tasks
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer
from tests.pure.test_in_process import settings

QUESTIONS = [f"other question {i}" for i in range(120)]


class Forgetful(ScriptedPolicy):
    """Right on every other question as the base; later versions are right on every third only."""

    def __init__(self) -> None:
        super().__init__(0, {0: 0.3, 1: 0.8, 2: 0.8, 3: 0.8})
        self.asked: list[tuple[int, str]] = []

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        text = prompt.messages[-1].content
        if not text.startswith("other"):
            return await super().generate(prompt, sampling, ref)
        assert ref is not None and sampling.purpose == "report" and sampling.temperature == 0
        self.asked.append((ref.version, text))
        right = int(text.split()[-1]) % (3 if ref.version else 2) == 0
        exact = ScriptedPolicy(ref.version, {ref.version: 1.0 if right else 0.0})
        return await exact.generate(prompt, sampling, ref)


def with_others(folder: Path, *overrides: str) -> Config:
    pairs = [{"prompt": text, "answer": right_answer(as_prompt(text))} for text in QUESTIONS]
    (folder / "others.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return settings(folder, f"report.other_tasks=[{folder}/others.jsonl]", *overrides)


async def test_the_base_and_what_is_served_are_asked_once_also_after_a_restart(tmp_path: Path) -> None:
    config, name = with_others(tmp_path), f"{tmp_path}/others.jsonl"
    policy = Forgetful()
    made = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path))
    run = asyncio.create_task(made.run(decided=3))
    async with asyncio.timeout(60):
        while not run.done() and "other_tasks" not in kinds(tmp_path):
            await asyncio.sleep(0.05)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    again = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path))
    await again.evaluator.start()
    for version in (0, 1, 1):
        await again.evaluator.measure_other_tasks(version)
    assert sorted(policy.asked) == sorted((version, text) for version in (0, 1) for text in QUESTIONS)
    reader = RunReader(tmp_path)
    (change,) = changes(list(reader.read_all(OtherMeasured).values()), 1)
    assert (change["task"], change["n"], change["before"], change["after"]) == (name, 120, 60 / 120, 40 / 120)
    assert change["change"] == pytest.approx(-20 / 120) and change["high"] < 0
    (event,) = reader.events("other_tasks")
    assert (event.detail["version"], event.detail["tasks"]) == (1, [change])
    said = sentence(event)
    assert said is not None and said.endswith("others.jsonl 50.0 -> 33.3% of 120 [red](lost)[/]")
    counted = {(row, labels) for row, _, labels in _flat(made)}
    assert ("other_task_ratio", (("task", name),)) in counted
    timing = {"wall_s": 1.0, "first_answer_s": 1.0}
    assert report.write(tmp_path, config, timing, 1, 1)["other_tasks"] == [change]
    assert "not learned: " in (tmp_path / "report.md").read_text() and "-16.7 points" in report.change_sentence(change)


def kinds(folder: Path) -> list[str]:
    return [event.kind for event in RunReader(folder).events()] if (folder / "run.sqlite").exists() else []


async def test_a_part_that_is_away_is_noted_and_ends_nothing(tmp_path: Path) -> None:
    made = LocalSystem(with_others(tmp_path), tmp_path, Forgetful(), ScriptedSession(tmp_path))

    class Away:
        async def status(self) -> object:
            raise Unavailable("versions is away")

    class Kept:
        def __init__(self) -> None:
            self.records: list[tuple[object, ...]] = []

        async def append(self, records: list[tuple[object, ...]]) -> None:
            self.records += records

    store = Kept()
    others = OtherTasks(made.config, made.evaluator._policy, Away(), store, Metrics(), ManualClock(1.0))  # type: ignore[arg-type]
    await made.store.start()
    await others.start(RunReader(tmp_path))
    await others.look()
    await made.store.stop()
    (noted,) = store.records
    assert "report_failed" in str(noted) and "versions is away" in str(noted)


def _flat(system: LocalSystem) -> list[tuple[str, float, tuple[tuple[str, str], ...]]]:
    return [(name, value, tuple(sorted(dict(labels).items()))) for name, value, labels in system.sink.records]


def test_a_version_is_only_compared_where_the_base_answered_as_many() -> None:
    rates = {"accuracy": 0.5, "low": 0.0, "high": 1.0}
    base = OtherMeasured(version=0, task="a", n=2, hits="10", **rates)
    now = OtherMeasured(version=3, task="a", n=2, hits="01", **rates)
    elsewhere = OtherMeasured(version=3, task="b", n=2, hits="01", **rates)
    fewer = OtherMeasured(version=3, task="a", n=1, hits="0", **rates)
    assert [change["task"] for change in changes([base, now, elsewhere], 3)] == ["a"]
    assert changes([base, fewer], 3) == [] and changes([base, now], 2) == []


def test_a_word_list_brings_its_own_questions_and_way_of_reading() -> None:
    config = configuration.load(None, ["report.other_tasks=[words/past]", "report.per_other_task=30"])
    (task,) = other_tasks(config)
    assert len(task.questions) == 30 and task.answer.kind == "pattern" and 0 < task.max_tokens <= 20
    assert len(task.questions[0].prompt.messages) == 9, "four examples as turns, and the question"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["report.other_tasks=[words/opposite]"], "nearest: opposites"),
        (["report.other_tasks=[nothing.parquet]"], "'nothing.parquet' is no file; expected words/NAME"),
        (
            ["report.other_tasks=[words/kinds]", "prompts.kind=words", "prompts.task=kinds"],
            "words/kinds is the task that this run learns",
        ),
    ],
)
def test_another_task_that_cannot_be_is_refused_by_name(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        other_tasks(configuration.load(None, overrides))


def test_questions_that_are_also_learned_from_are_refused_at_the_start(tmp_path: Path) -> None:
    config = with_others(tmp_path, "serve.port=0")
    pq.write_table(pa.table({"prompt": ["pool question", QUESTIONS[3].upper()]}), tmp_path / "pool.parquet")
    with pytest.raises(ConfigError, match=r"1 questions are both in .*pool.* and in .*others\.jsonl"):
        preflight.check(config)
