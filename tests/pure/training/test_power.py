"""How many probes the gate needs, against what the gate itself does with so many."""

import numpy as np
import pytest

from core.config import GateConfig
from core.messages import BASE, Evidence, PolicyRef
from training.gate.gate import Gate
from training.gate.power import LOSSES, MOST, WINS, probes_needed, too_few, would_decide

CONFIG = GateConfig()


def promoted(probes: int, wins: float, losses: float, config: GateConfig = CONFIG, runs: int = 200) -> float:
    """Share of simulated candidates that `Gate` promotes on so many probes."""
    rng = np.random.default_rng(1)
    count = 0
    for _ in range(runs):
        d = rng.choice([1, 0, -1], p=[wins, 1 - wins - losses, losses], size=probes)
        evidence = Evidence(
            candidate=PolicyRef(version=1),
            champion=BASE,
            candidate_hits=tuple((d >= 0).tolist()),
            champion_hits=tuple((d <= 0).tolist()),
            certified=False,
        )
        decision = Gate(config).decide(evidence, exhausted=True)
        count += decision is not None and decision.verdict == "promote"
    return count / runs


@pytest.mark.parametrize(("wins", "losses"), [(WINS, LOSSES), (0.25, 0.05)])
def test_nine_of_ten_are_decided_on_the_probes_needed_and_far_fewer_on_half_of_them(wins: float, losses: float) -> None:
    needed = probes_needed(CONFIG, wins, losses)
    assert needed is not None
    assert 0.84 <= promoted(needed, wins, losses) <= 0.96
    assert promoted(needed // 2, wins, losses) < 0.75


def test_a_smaller_gain_a_later_candidate_and_a_stricter_gate_need_more() -> None:
    needed = probes_needed(CONFIG, WINS, LOSSES)
    assert needed is not None
    for config, wins, candidate in (
        (CONFIG, 0.08, 1),
        (CONFIG, WINS, 5),
        (CONFIG.model_copy(update={"alpha": 0.001}), WINS, 1),
    ):
        more = probes_needed(config, wins, LOSSES, candidate)
        assert more is not None and more > needed


def test_what_no_number_of_probes_decides_has_no_number() -> None:
    """3 points worse is exactly what the gate tolerates, and is not worse than that."""
    strict = CONFIG.model_copy(update={"delta": 0.001})
    assert probes_needed(strict, 0.05, 0.05) is None
    assert f"not even {MOST} probes decide" in would_decide(strict, np.array([1, -1, *[0] * 18], np.int8), 1)


def test_the_start_says_how_many_are_needed_and_what_to_do() -> None:
    needed = probes_needed(CONFIG, WINS, LOSSES)
    assert needed is not None and 300 < needed < 500
    assert too_few(CONFIG, needed) is None
    few = too_few(CONFIG, needed - 1)
    assert few is not None and f"{needed - 1} probes are few" in few and f"needs {needed}" in few
    assert few.endswith("bring more held-out questions")
    capped = too_few(CONFIG.model_copy(update={"max_probes": 100}), 2000)
    assert capped is not None and "100 probes are few" in capped and capped.endswith("raise gate.max_probes")


def test_a_hold_says_how_many_would_decide() -> None:
    d = np.array([1] * 20 + [-1] * 5 + [0] * 90, dtype=np.int8)
    needed = probes_needed(CONFIG, 20 / 115, 5 / 115, 3)
    assert needed is not None and needed > 115
    assert f"if it goes on so, {needed} probes decide it nine of ten times" in would_decide(CONFIG, d, 3)
    assert "if it goes on so, 116 probes" in would_decide(CONFIG, np.array([1] * 115, dtype=np.int8), 1)
