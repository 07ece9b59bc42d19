"""The gap between vote and sample is measured on report questions, told, and ends learning when it is gone."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.evaluate.measuring import sampled
from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect.report import version_rows
from core import config as configuration
from core.config import Config, NumberAnswer
from core.errors import ConfigError
from core.messages import BASE, Candidate
from core.messages.versions import Question
from core.store.facts import Measured
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer


def said(*answers: str) -> list[Candidate]:
    return [
        Candidate(
            id=f"{place}-{answer}", start=BASE, end=BASE, context_ids=b"", completion_ids=b"", text=answer,
            finish="stop", render_id="r",
        )
        for place, answer in enumerate(answers)
    ]  # fmt: skip


def question(key: str) -> Question:
    return Question(prompt=as_prompt(f"what is {key}?"), answer=key)


def test_the_gap_is_what_the_vote_keeps_over_what_is_sampled_by_hand() -> None:
    """5 5 6 8 for 5: 2 of 4 right, the vote keeps those. 7 7 9 9 9 for 7: .4, it keeps the nines. None for 3."""
    asked = [question("5"), question("7"), question("3")]
    found = sampled(asked, [said("5", "5", "6", "8"), said("7", "7", "9", "9", "9"), []], NumberAnswer())
    assert found["sampled_ratio"] == pytest.approx(4 / 9) and found["pass_n_ratio"] == 1
    assert found["gap"] == pytest.approx((0.5 - 0.4) / 2) and found["gap_low"] < found["gap"] < found["gap_high"]
    assert sampled(asked[:1], [[]], NumberAnswer()) == {} == sampled([], [], NumberAnswer())


def settings(folder: Path, *more: str) -> Config:
    (folder / "pool.jsonl").write_text("".join(json.dumps({"prompt": f"q {i}"}) + "\n" for i in range(400)))
    prompts = [f"report question {i}" for i in range(60)]
    table = {"prompt": prompts, "answer": [right_answer(as_prompt(text)) for text in prompts]}
    pq.write_table(pa.table(table), folder / "report.parquet")
    base = [
        f"prompts.path={folder}/pool.jsonl", f"report.questions={folder}/report.parquet", "report.split=null",
        "gate.anchors=null", "gate.enabled=false", "learning.groups_per_window=24", "report.per_version=60",
        "report.sampled=60", "learning.plateau=null",
    ]  # fmt: skip
    return configuration.load(None, [*base, *more])


async def test_a_version_that_is_sampled_tells_its_gap_and_one_with_a_gap_learns_on(tmp_path: Path) -> None:
    policy = ScriptedPolicy(accuracy=dict.fromkeys(range(1000), 0.5))
    system = LocalSystem(settings(tmp_path, "report.least_gap=0.1"), tmp_path, policy, ScriptedSession(tmp_path))
    await system.run(decided=4)
    found = RunReader(tmp_path).read(Measured, 1)
    assert found is not None and found.sampled_ratio == pytest.approx(0.5, abs=0.1) and found.pass_n_ratio == 1
    assert found.gap is not None and found.gap > 0.3
    rows = {row.version: row for row in version_rows(RunReader(tmp_path))}
    assert rows[1].gap == found.gap and "report_gap" in {name for name, *_ in system.sink.records}
    assert (await system.buffer.learning.status())["paused"] is None


async def test_learning_pauses_when_two_versions_in_a_row_have_no_gap(tmp_path: Path) -> None:
    policy = ScriptedPolicy(accuracy={0: 0.5, **dict.fromkeys(range(1, 1000), 1.0)})
    system = LocalSystem(settings(tmp_path, "report.least_gap=0.1"), tmp_path, policy, ScriptedSession(tmp_path))
    await system.run(decided=2, until_paused=True)
    paused = (await system.buffer.learning.status())["paused"]
    assert paused is not None and "report.least_gap=0.1" in str(paused)


def test_a_gap_that_nothing_measures_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"report\.least_gap=0\.1 needs a gap that is measured"):
        configuration.load(None, ["report.least_gap=0.1"])
