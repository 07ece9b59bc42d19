"""What the drill of collapsing recipes concludes; the runs themselves are in tests/real."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from actors.inspect.served import Verdicts
from actors.inspect.served import verdicts as verdicts_of
from bench import collapse
from core.config import load
from tests.pure.bench.run_directories import hits, run_directory


def drill(out: Path, *arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    collapse.arguments(parser)
    return collapse.run(parser.parse_args([f"--out={out}", *arguments]))


@pytest.mark.parametrize("recipe", collapse.RECIPES)
@pytest.mark.parametrize("gate", collapse.GATES)
def test_every_drill_is_made_of_settings_that_exist(recipe: str, gate: str, tmp_path: Path) -> None:
    config = load("configs/tiny.yaml", collapse.settings(recipe, gate, argparse.Namespace(out=tmp_path, overrides=[])))
    assert config.gate.enabled == (gate != "off") and (config.gate.keys is not None) == (gate == "keys")


def test_the_drill_reports_the_worst_of_its_seeds_with_the_gate_and_without(tmp_path: Path) -> None:
    for seed in range(2):
        for gate in collapse.GATES:
            verdicts = {1: "promote" if gate == "off" else "reject"}
            ruin = hits(40 + 40 * seed)
            run_directory(tmp_path / f"ttrl-{gate}-v1-s{seed}", verdicts, {0: hits(200), 1: ruin}, {0: hits(200)})
    found = drill(tmp_path, "--seeds=2", "--versions=1", "--recipes=ttrl")
    assert found["worst_drop_gated"] == {"ttrl": 0}
    assert found["worst_drop_ungated"]["ttrl"] == pytest.approx(0.4 - 1.6449 * 0.4905 / 20, abs=1e-3)
    assert found["recipes"]["ttrl"]["off"]["verdicts"] == ["p", "p"]
    keys = collapse.pq.read_table(tmp_path / "keys.parquet").column("prompt").to_pylist()
    report = collapse.pq.read_table(tmp_path / "report.parquet").column("prompt").to_pylist()
    assert len(keys) == len(report) == 1200 and not set(keys) & set(report)


def judged(folder: Path, verdicts: dict[int, str], right: dict[int, int], **more: object) -> Verdicts:
    measured = {version: hits(n) for version, n in right.items()}
    return verdicts_of(run_directory(folder, verdicts, measured, {}, **more))


def test_each_verdict_is_judged_by_the_version_that_was_served_then(tmp_path: Path) -> None:
    """v1 is better and missed (held), v2 better and served, v3 worse and served, v4 worse than the base but better than
    v3 and missed (rejected), v5 worse and rejected, v6 equal and promoted, v7 was not measured."""
    verdicts = dict(enumerate(("hold", "promote", "promote", "reject", "reject", "promote", "promote"), start=1))
    right = {0: 200, 1: 240, 2: 300, 3: 100, 4: 150, 5: 20, 6: 101}
    found = judged(tmp_path / "r", verdicts, right)
    assert found == Verdicts(candidates=7, promoted=4, worse=2, worse_served=1, better=3, better_missed=2)


def test_after_a_rollback_the_candidates_are_judged_by_what_is_served_again(tmp_path: Path) -> None:
    verdicts, right = {1: "promote", 2: "reject"}, {0: 200, 1: 100, 2: 150}
    served_on = judged(tmp_path / "a", verdicts, right)
    assert (served_on.worse, served_on.worse_served, served_on.better, served_on.better_missed) == (1, 1, 1, 1)
    back = judged(tmp_path / "b", verdicts, right, rolled_back={1: 0})
    assert (back.worse, back.worse_served, back.better, back.better_missed) == (2, 1, 0, 0)


def test_a_gain_counts_only_beyond_its_bound(tmp_path: Path) -> None:
    """Of 400: 2 more are .005, their bound .005 - 1.6449 * .0706 / 20 < 0; 4 more are .01, bound .01 - .0082 > 0."""
    assert judged(tmp_path / "a", {1: "reject"}, {0: 200, 1: 202}).better == 0
    assert judged(tmp_path / "b", {1: "reject"}, {0: 200, 1: 204}).better_missed == 1
    assert judged(tmp_path / "c", {1: "promote"}, {0: 204, 1: 200}).worse_served == 1


def test_a_gate_that_rejects_all_is_told_from_one_that_protects(tmp_path: Path) -> None:
    for gate, verdict in (("off", "promote"), ("anchors", "reject"), ("keys", "promote")):
        for seed in range(2):
            for recipe, right in (("ttrl", 20), ("healthy", 300)):
                said = "reject" if recipe == "ttrl" and gate == "keys" else verdict
                run_directory(
                    tmp_path / f"{recipe}-{gate}-v1-s{seed}", {1: said}, {0: hits(200), 1: hits(right)}, {0: hits(200)}
                )
    found = drill(tmp_path, "--seeds=2", "--versions=1", "--recipes=ttrl,healthy")["verdicts"]
    rejects_all, protects = found["healthy"]["anchors"], found["healthy"]["keys"]
    assert (rejects_all["promoted"], rejects_all["better"], rejects_all["better_missed"]) == (0, 2, 2)
    assert (protects["promoted"], protects["better"], protects["better_missed"]) == (2, 2, 0)
    assert (found["ttrl"]["off"]["worse_served"], found["ttrl"]["keys"]["worse_served"]) == (2, 0)
    assert found["ttrl"]["keys"]["worse_served_bound"] == pytest.approx(1 - 0.05**0.5, abs=1e-4)


def test_a_record_of_before_the_verdicts_were_judged_is_made_anew(tmp_path: Path) -> None:
    run_directory(tmp_path / "ttrl-off-v1-s0", {1: "promote"}, {0: hits(200), 1: hits(20)}, {0: hits(200)})
    arguments = ("--seeds=1", "--versions=1", "--recipes=ttrl", "--gates=off")
    before = drill(tmp_path, *arguments)
    records = tmp_path / "records.jsonl"
    line = json.loads(records.read_text())
    del line["found"]["judged"]
    records.write_text(json.dumps(line) + "\n")
    assert drill(tmp_path, *arguments) == before
    assert json.loads(records.read_text().splitlines()[-1])["found"]["judged"]["worse_served"] == 1


def test_an_unknown_recipe_is_refused_by_name(tmp_path: Path) -> None:
    options = argparse.Namespace(quick=False, out=tmp_path, recipes="grpo", gates="off", seeds=1, versions=1)
    with pytest.raises(SystemExit, match="no recipe 'grpo'; available: ttrl, hot-sft, unvoted, healthy"):
        collapse.run(options)
