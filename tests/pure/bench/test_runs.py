"""What a drill concludes from a run directory; the run itself is in tests/real."""

from pathlib import Path

import pytest

from bench._runs import Records, finished, served_hits, worst_drop
from tests.pure.bench.run_directories import hits, run_directory


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


def test_what_a_record_holds_is_not_run_again_unless_a_setting_changed(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    Records(file).add("ttrl-off-s0", ["learning.lr=0.01"], {"accuracy": 0.5})
    again = Records(file)
    assert again.get("ttrl-off-s0", ["learning.lr=0.01"]) == {"accuracy": 0.5}
    assert again.get("ttrl-off-s0", ["learning.lr=0.02"]) is None
    assert again.get("ttrl-off-s1", ["learning.lr=0.01"]) is None
