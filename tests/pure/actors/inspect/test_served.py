"""What users got in a run that ended, and how right its verdicts were; see also tests/pure/bench/test_collapse.py."""

from pathlib import Path

import pytest

from actors.inspect.served import Judged, Mistakes, history, mistakes, served_hits, served_over_tokens, worst_drop
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


def test_a_history_tells_what_each_candidate_was_weighed_against_and_what_was_served_after(tmp_path: Path) -> None:
    verdicts = {1: "promote", 2: "reject", 3: "promote", 4: "hold"}
    folder = run_directory(tmp_path / "r", verdicts, {}, {}, rolled_back={3: 1})
    assert history(folder) == [
        Judged(1, promoted=True, against=0, served=1),
        Judged(2, promoted=False, against=1, served=1),
        Judged(3, promoted=True, against=1, served=1),
        Judged(4, promoted=False, against=1, served=1),
    ]


JUDGED = [
    Judged(1, promoted=True, against=0, served=1),
    Judged(2, promoted=True, against=1, served=2),
    Judged(3, promoted=False, against=2, served=2),
    Judged(4, promoted=False, against=2, served=2),
    Judged(5, promoted=True, against=2, served=5),
]


def test_a_promotion_is_false_below_what_was_served_and_missed_above_it() -> None:
    """v1 is better, v2 worse and promoted; v3 is better than v2 and rejected; v4 and v5 are equal to v2."""
    assert mistakes(JUDGED, {0: 0.4, 1: 0.5, 2: 0.45, 3: 0.46, 4: 0.45, 5: 0.45}) == Mistakes(1, 1)
    assert mistakes(JUDGED, {1: 0.5, 3: 0.4}) == mistakes(JUDGED, {}) == Mistakes(0, 0), "not both were measured"


def test_the_served_accuracy_over_tokens_begins_with_the_base_and_leaves_out_what_was_not_measured() -> None:
    tokens = {1: 100, 2: 200, 3: 300, 4: 400, 5: 500}
    found = served_over_tokens(JUDGED, tokens, {0: 0.4, 1: 0.5, 2: 0.45, 3: 0.9})
    assert found == [(0, 0.4), (100, 0.5), (200, 0.45), (300, 0.45), (400, 0.45)]
