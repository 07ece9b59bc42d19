"""What a run tells of its versions by the report's questions, with all actors in one process."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from actors.cli.progress import Progress
from actors.in_process import LocalSystem
from actors.inspect.report import monitored, version_rows
from core.config import RunConfig
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import right_answer
from tests.pure.test_in_process import settings, system

MONITORS = ("flexible_ratio", "entropy_nats", "distinct_2_ratio")


async def run(folder: Path) -> LocalSystem:
    asked = [f"report question {i}" for i in range(50)]
    answers = [right_answer(as_prompt(question)) for question in asked]
    pq.write_table(pa.table({"prompt": asked, "answer": answers}), folder / "report.parquet")
    made = system(folder, settings(folder, f"report.questions={folder}/report.parquet"), {0: 0.3, 1: 0.6, 2: 0.6})
    await made.run(decided=1)
    return made


async def test_format_and_diversity_are_stored_counted_and_shown(tmp_path: Path) -> None:
    made = await run(tmp_path)
    (base, *_) = version_rows(RunReader(tmp_path))
    assert base.accuracy is not None and base.flexible_ratio == base.accuracy, "scripted answers are all well formed"
    assert base.entropy_nats is not None and base.distinct_2_ratio is not None and 0 < base.distinct_2_ratio < 1
    assert monitored(base) == (
        f"{base.accuracy:.1%}",
        f"{base.entropy_nats:.2f}",
        f"{base.distinct_2_ratio:.1%}",
    )
    counted = {name for name, _, _ in made.sink.records}
    assert {f"report_{name}" for name in MONITORS} <= counted
    assert set(MONITORS) <= (await made.evaluator.status()).keys()


async def test_a_budget_is_spent_by_a_decided_candidate_and_not_by_sampling_ahead(tmp_path: Path) -> None:
    await run(tmp_path)
    first = next(row for row in version_rows(RunReader(tmp_path)) if row.version == 1)
    assert first.verdict == "promote" and first.tokens > 0
    with Progress(tmp_path, "", Console(quiet=True)) as progress:
        assert not progress.spent(RunConfig(versions=9, tokens=1)), "nothing was read yet"
        progress.show({})
        decided = [row.tokens for row in version_rows(RunReader(tmp_path)) if row.verdict not in ("base", "undecided")]
        assert progress.spent(RunConfig(versions=9, tokens=max(decided)))
        assert not progress.spent(RunConfig(versions=9, tokens=max(decided) + 1))
        assert not progress.spent(RunConfig(versions=9))
