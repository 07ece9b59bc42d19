"""What a drill concludes from a run directory; the run itself is in tests/real."""

import argparse
import json
from pathlib import Path

import pytest

from bench import collapse
from bench._runs import Records, finished, served_hits, worst_drop
from core.config import load
from core.messages import BASE, Decision, PolicyRef
from core.store.facts import FinalMeasured, Measured
from core.store.records import message
from core.store.writer import RunStore


def hits(right: int, of: int = 400) -> str:
    return "1" * right + "0" * (of - right)


def run_directory(folder: Path, verdicts: dict[int, str], measured: dict[int, str], final: dict[int, str]) -> Path:
    folder.mkdir(parents=True)
    store = RunStore(folder)
    for version, verdict in verdicts.items():
        candidate = PolicyRef(version=version)
        decision = Decision.model_validate(
            dict(verdict=verdict, candidate=candidate, champion=BASE, reason="", probes=1, certified=False)
        )
        store.write([message("decisions", str(candidate), str(BASE), decision)])
    rates = {"accuracy": 0.0, "low": 0.0, "high": 0.0, "n": 0}
    found = [Measured(version=v, hits=bits, **rates).record(v) for v, bits in measured.items()]
    store.write([*found, *(FinalMeasured(version=v, hits=bits, **rates).record(v) for v, bits in final.items())])
    store.close()
    versions = [{"verdict": "base", "accuracy": 0.5}, *({"verdict": v, "accuracy": None} for v in verdicts.values())]
    report = {"accuracy_start": 0.5, "accuracy_end": 0.1, "wall_s": 9.0, "versions": versions}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_only_what_was_served_counts_and_the_final_report_fills_in_what_was_not_measured(tmp_path: Path) -> None:
    verdicts = {1: "promote", 2: "reject", 3: "promote", 4: "promote"}
    folder = run_directory(
        tmp_path / "r", verdicts, {0: hits(100), 1: hits(200), 2: hits(0)}, {0: hits(130, 800), 4: hits(180, 800)}
    )
    found = served_hits(folder)
    assert {version: sum(outcomes) for version, outcomes in found.items()} == {0: 100, 1: 200, 4: 180}
    assert {len(outcomes) for outcomes in found.values()} == {400}


def test_a_drop_is_from_the_best_before_and_its_bound_is_the_paired_one() -> None:
    """40 of 400 lost: mean .1, standard deviation .3004, so the lower bound is .1 - 1.6449 * .3004 / 20."""
    served = {0: hits(100), 1: hits(240), 2: hits(200), 3: hits(230)}
    bound, seen = worst_drop({v: [bit == "1" for bit in bits] for v, bits in served.items()})
    assert seen == pytest.approx(0.1) and bound == pytest.approx(0.1 - 1.6449 * 0.3004 / 20, abs=1e-4)
    rising = {v: [bit == "1" for bit in hits(100 + 10 * v)] for v in range(4)}
    assert worst_drop(rising) == (0, 0) and worst_drop({}) == (0, 0)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    folder = run_directory(tmp_path / "r", {}, {}, {})
    assert finished(folder, "no/such.yaml", 1, 0, ["no.such=1"])["accuracy_start"] == 0.5


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    collapse.arguments(parser)
    found = collapse.run(parser.parse_args([f"--out={tmp_path}", "--seeds=2", "--versions=1", "--recipes=ttrl"]))
    assert found["worst_drop_gated"] == {"ttrl": 0}
    assert found["worst_drop_ungated"]["ttrl"] == pytest.approx(0.4 - 1.6449 * 0.4905 / 20, abs=1e-3)
    assert found["recipes"]["ttrl"]["off"]["verdicts"] == ["p", "p"]
    keys = collapse.pq.read_table(tmp_path / "keys.parquet").column("prompt").to_pylist()
    report = collapse.pq.read_table(tmp_path / "report.parquet").column("prompt").to_pylist()
    assert len(keys) == len(report) == 1200 and not set(keys) & set(report)


def test_an_unknown_recipe_is_refused_by_name(tmp_path: Path) -> None:
    options = argparse.Namespace(quick=False, out=tmp_path, recipes="grpo", gates="off", seeds=1, versions=1)
    with pytest.raises(SystemExit, match="no recipe 'grpo'; available: ttrl, hot-sft, unvoted"):
        collapse.run(options)


def test_what_a_record_holds_is_not_run_again_unless_a_setting_changed(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    Records(file).add("ttrl-off-s0", ["learning.lr=0.01"], {"accuracy": 0.5})
    again = Records(file)
    assert again.get("ttrl-off-s0", ["learning.lr=0.01"]) == {"accuracy": 0.5}
    assert again.get("ttrl-off-s0", ["learning.lr=0.02"]) is None
    assert again.get("ttrl-off-s1", ["learning.lr=0.01"]) is None
