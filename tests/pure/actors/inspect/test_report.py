"""What a report says of a better version that is not served, and of a gate that is off."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.inspect import report
from actors.inspect.report import VersionRow, better_held
from core.config import load
from core.store.writer import RunStore

SERVED = 0.60


def row(version: int, verdict: str, accuracy: float | None) -> VersionRow:
    return VersionRow(version, verdict, "guarded", "undecided", 130, 0.8, 0.8, accuracy, None, None, 0)


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ([("hold", 0.83), ("hold", 0.70)], 2),
        ([("hold", 0.70), ("hold", 0.83)], 3),
        ([("reject", 0.83), ("hold", 0.61)], 3),
        ([("hold", SERVED), ("hold", 0.59)], None),
        ([("hold", None), ("rolled back", 0.9)], None),
        ([], None),
    ],
)
def test_the_best_held_version_is_named_if_it_is_better_than_the_served_one(
    others: list[tuple[str, float | None]], named: int | None
) -> None:
    rows = [row(0, "base", 0.5), row(1, "promote", SERVED), *(row(n, *other) for n, other in enumerate(others, 2))]
    found = better_held(rows, served=1)
    assert (found and found.version) == named
    assert better_held([row(0, "base", None), *rows[2:]], served=0) is None, "the served one was not measured"


def test_the_sentence_says_what_was_reached_why_it_is_held_and_how_to_serve_it() -> None:
    rows = [row(0, "base", 0.5), row(1, "hold", 0.83)]
    body: Any = {"better_held": 1}
    said = report.held_sentence(rows, body)
    assert said is not None and said.startswith("v1 reached 83.0% and is held, so it is not served: undecided.")
    assert "ask --version policy@v1" in said and "promote v1 --reason" in said
    body = {"better_held": None}
    assert report.held_sentence(rows, body) is None


@pytest.mark.parametrize(
    ("settings", "gate"),
    [([], "guarded"), (["gate.keys=keys.parquet"], "certified"), (["gate.enabled=false"], "off")],
)
def test_a_report_tells_what_promotions_rest_on(tmp_path: Path, settings: list[str], gate: str) -> None:
    RunStore(tmp_path).close()
    report.write(tmp_path, load(None, settings), {"wall_s": 1.0, "first_answer_s": 1.0}, 0, 0)
    assert json.loads((tmp_path / "report.json").read_text())["gate"] == gate
