"""What `bench rounds` counts: what is served after each round, and when the goal is reached first."""

import json
from pathlib import Path
from typing import Any

from bench.rounds import points, served, to_goal
from tests.pure.bench.run_directories import hits, run_directory


def row(accuracy: float, kept: bool = True, **costs: float) -> dict[str, Any]:
    return {"accuracy": accuracy, "kept": kept, "tokens": 10, "sampling_cpu_s": 2.0, "training_cpu_s": 3.0, **costs}


def test_an_adapter_that_is_not_kept_serves_nobody() -> None:
    found = served([row(0.5, kept=False), row(0.7), row(0.2, kept=False), row(0.8)])
    assert [point["accuracy"] for point in found] == [0.0, 0.7, 0.7, 0.8] and found[0]["cpu_s"] == 5.0


def test_the_goal_is_reached_at_the_first_point_that_has_it() -> None:
    made = [{"accuracy": a, "tokens": t, "cpu_s": 1.0, "gate_cpu_s": 0.5} for a, t in ((0.5, 1), (0.75, 2), (0.9, 3))]
    assert to_goal(made, 0.75) == {"tokens": 2, "cpu_s": 1.0, "gate_cpu_s": 0.5} and to_goal(made, 0.95) is None


def test_of_ours_counts_what_is_served_after_each_verdict(tmp_path: Path) -> None:
    measured = {0: hits(120), 1: hits(200), 2: hits(300)}
    folder = run_directory(tmp_path / "run", {1: "hold", 2: "promote"}, measured, {})
    body = json.loads((folder / "report.json").read_text())
    body["versions"] = [{"version": version, "tokens": 1000 * version} for version in range(3)]
    (folder / "report.json").write_text(json.dumps(body))
    rates = {0: 0.3, 1: 0.5, 2: 0.75}
    found = points(folder, {1: 30.0}, 55.0, rates)
    assert [(p["accuracy"], p["tokens"], p["cpu_s"], p["verdict"]) for p in found] == [
        (0.3, 1000, 30.0, "hold"),
        (0.75, 2000, 55.0, "promote"),
    ]
