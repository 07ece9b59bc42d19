"""The rules of other gates by hand, and what the benchmark counts of them."""

from pathlib import Path

import numpy as np
import pytest

from bench import gates
from bench.gates import Judged, betting, by_keys, draws, figures, judged, mcnemar, peeking, threshold
from tests.pure.bench.run_directories import hits, run_directory


def d(wins: int, losses: int, of: int) -> gates.Bits:
    """[1, of]: losses first."""
    return np.array([[-1] * losses + [1] * wins + [0] * (of - wins - losses)], dtype=np.int8)


@pytest.mark.parametrize(("losses", "promoted"), [(3, True), (4, True), (5, False)])
def test_a_threshold_promotes_down_to_its_epsilon(losses: int, promoted: bool) -> None:
    found, probes = threshold(200)(d(0, losses, 300))  # 4 of 200 are .02
    assert (bool(found[0]), int(probes[0])) == (promoted, 200)


def test_mcnemar_promotes_what_is_better_or_what_is_not_shown_to_be_worse() -> None:
    """(|b - c| - 1) / sqrt(b + c): 20 and 8 give 11 / 5.29 = 2.08, 15 and 8 give 6 / 4.80 = 1.25; 1.645 is needed."""
    for wins, losses, better, not_worse in ((20, 8, True, True), (15, 8, False, True), (8, 15, False, True)):
        assert bool(mcnemar(100, better=True)(d(wins, losses, 100))[0][0]) == better
        assert bool(mcnemar(100, better=False)(d(wins, losses, 100))[0][0]) == not_worse
    assert not mcnemar(100, better=False)(d(8, 20, 100))[0][0]


def test_one_who_looks_again_and_again_stops_at_the_first_that_pleases() -> None:
    early = np.zeros((1, 256), dtype=np.int8)
    early[0, 64:] = -1
    promoted, probes = peeking(early)  # equal on the first look, worse on every later question
    assert (bool(promoted[0]), int(probes[0])) == (True, 64)
    never, probes = peeking(np.full((1, 256), -1, dtype=np.int8))
    assert (bool(never[0]), int(probes[0])) == (False, 256)


def test_a_run_is_counted_by_the_place_of_each_candidate() -> None:
    found = Judged(np.array([0.5, 0.0]), 10.0)
    assert (found.expected, found.chance) == (0.5, 0.5)
    every = {effect: Judged(np.array([0.25]), 7.4) for effect in (*gates.WORSE, 0.0, *gates.GAINS)}
    row = figures(every, candidates=4)
    assert row["worse_promoted"] == {"-0.03": 1.0, "-0.06": 1.0} and row["probes"]["+0.05"] == 7
    assert row["any_worse_ratio"]["-0.03"] == round(1 - 0.75**4, 4)
    assert row["gains_missed_ratio"] == {"+0.05": 0.75, "+0.10": 0.75} and row["equal_promoted_ratio"] == 0.25


def test_ours_spends_its_budget_and_lets_fewer_through() -> None:
    worse = draws(-0.03, 400, np.random.default_rng(0))
    assert np.abs(worse.mean() + 0.03) < 0.002 and np.abs(np.abs(worse).mean() - gates.DISCORDANCE) < 0.002
    spending, lavish, fixed = (judged(rule, worse) for rule in (betting(100), betting(100, False), threshold(200)))
    assert spending.promoted.shape == (100,) and spending.chance < 0.1 < lavish.chance < fixed.promoted.sum() * 100


def test_recorded_versions_are_compared_on_the_questions_that_both_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_directory(tmp_path / "run", {1: "promote"}, {0: hits(100), 1: hits(140)}, {})
    found = by_keys(folder)
    assert sum(found[1].values()) - sum(found[0].values()) == 40
    rng = np.random.default_rng(0)
    monkeypatch.setattr(gates, "by_anchors", lambda folder: {})  # this folder has no config
    (row,) = gates.replayed(folder, 50, {"threshold": threshold(200)}, rng)
    assert (row["versions"], row["questions"], row["effect"]) == ([0, 1], 400, 0.1)
    assert row["by"] == "keys" and row["promoted_ratio"] == {"threshold": 1.0}
