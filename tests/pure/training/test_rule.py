import math

import numpy as np
import pytest

from bench import _gate_simulation as simulation
from bench._gate_simulation import draw, draw_pairs, driven, evidence, population, power, simulate, simulate_saturated
from core.config import GateConfig
from core.messages import Evidence, PolicyRef
from core.store.facts import GateLedger
from training.gate.gate import Gate
from training.gate.rule import (
    HOLD,
    PROMOTE,
    REJECT,
    alpha_of,
    first,
    regret,
    wealth,
    wealth_above,
    wealth_below,
    wealth_worse,
    weigh,
    weigh_saturated,
)

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
WORDS = {"promote": PROMOTE, "reject": REJECT, "hold": HOLD}


def path(*d: int):
    return np.array(d, dtype=np.int8)


def test_wealth_is_the_mean_over_stakes_of_the_products():
    assert wealth(path(1), 0.0)[-1] == pytest.approx(1 + sum(STAKES) / 7)
    by_hand = sum((1 + s) * (1 - s * 0.97 / 1.03) * (1 + s * 0.03 / 1.03) for s in STAKES) / 7
    assert wealth(path(1, -1, 0), 0.03)[-1] == pytest.approx(by_hand)
    assert wealth(np.ones(5000, np.int8), 0.0)[-1] == math.inf


def test_a_fair_game_keeps_the_expected_wealth_at_one():
    fair = [(1, 0.2), (0, 0.0), (-1, 0.8)]
    assert sum(p * wealth(path(x), 0.6)[0] for x, p in fair) == pytest.approx(1.0)
    assert sum(p * q * wealth(path(x, y), 0.6)[1] for x, p in fair for y, q in fair) == pytest.approx(1.0)
    assert 0.4 * wealth_worse(path(1), 0.2)[0] + 0.6 * wealth_worse(path(-1), 0.2)[0] == pytest.approx(1.0)


def test_wealth_against_a_floor_is_the_mean_of_the_products_and_fair_at_the_floor():
    by_hand = sum((1 + s * 0.25) * (1 - s) for s in STAKES) / 7
    assert wealth_above(path(1, 0), 0.8)[-1] == pytest.approx(by_hand)
    assert wealth_below(path(1, 0), 0.2)[-1] == pytest.approx(by_hand)
    for process in (wealth_above, wealth_below):
        assert 0.8 * process(path(1), 0.8)[0] + 0.2 * process(path(0), 0.8)[0] == pytest.approx(1.0)


def test_the_alphas_of_all_candidates_sum_to_alpha():
    assert alpha_of(1, 0.05) == pytest.approx(0.0303963, rel=1e-5)
    assert sum(alpha_of(j, 0.05) for j in range(1, 200_000)) == pytest.approx(0.05, rel=1e-4)


def test_a_level_is_reached_at_its_first_probe_or_past_the_end():
    rising_and_falling = np.array([[1.0, 3.0, 2.0, 9.0], [0.5, 0.4, 0.3, 0.2]])
    assert first(rising_and_falling, [3.0, 2.5, 10.0]).tolist() == [[2, 2, 5], [5, 5, 5]]


def test_the_first_crossing_decides_and_a_rejection_needs_to_be_the_earlier_one():
    config = GateConfig()
    lost, won = [-1] * 12, [1] * 60
    found = weigh(np.array([[*lost, *won], [*won, *lost], [0, 1, -1] * 24], np.int8), config, [0.03, 1e-9])
    assert found.verdict.tolist() == [[REJECT, REJECT], [PROMOTE, PROMOTE], [HOLD, HOLD]]
    assert found.better.tolist() == [[False, False], [True, True], [False, False]]
    assert found.probes[:, 0].tolist() == [
        int(first(wealth(-path(*lost), 0.0), [50.0])[0]),
        int(first(wealth(path(*won), 0.03), [1 / 0.03])[0]),
        72,
    ]


# --- the simulation is the gate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("j", [1, 5, 50])
@pytest.mark.parametrize("effect", [0.1, 0.02, 0.0, -0.06])
def test_the_gate_decides_by_the_rule_that_the_simulation_counts(effect, j):
    config = GateConfig()
    drawn = draw(effect, 6, np.random.default_rng(j), 0.2, 2000)
    found = weigh(drawn, config, [alpha_of(j, config.alpha)])
    for row, d in enumerate(drawn):
        gate = Gate(config, GateLedger(weighed=j - 1))
        decision = gate.decide(evidence(d), exhausted=True)
        assert decision is not None and WORDS[decision.verdict] == found.verdict[row, 0]
        assert decision.new_champion == bool(found.better[row, 0])
        assert decision.verdict == "hold" or f"after {found.probes[row, 0]} probes" in decision.reason


@pytest.mark.parametrize("j", [1, 5, 50])
@pytest.mark.parametrize("rate", [0.93, 0.87, 0.80])
def test_with_saturated_anchors_too(rate, j):
    config, champion = GateConfig(anchor_precision=0.93), PolicyRef(version=2)
    ledger = GateLedger(weighed=j - 1, champion=champion, champion_asked=600, champion_hits=558)
    pairs = draw_pairs(rate, 0.93, 6, np.random.default_rng(j), 2000)
    found = weigh_saturated(*pairs, config, [alpha_of(j, config.alpha)])
    for row, (hits, theirs) in enumerate(zip(*pairs, strict=True)):
        answered = Evidence(
            candidate=PolicyRef(version=3),
            champion=champion,
            candidate_hits=tuple(bool(x) for x in hits),
            champion_hits=tuple(bool(x) for x in theirs),
            certified=False,
        )
        decision = Gate(config, ledger).decide(answered, exhausted=True)
        assert decision is not None and WORDS[decision.verdict] == found.verdict[row, 0] and not decision.new_champion


def test_the_watch_calls_back_by_the_rule_that_the_simulation_counts():
    drawn = draw(-0.1, 8, np.random.default_rng(1), 0.2, 512)
    for d, crossed in zip(drawn, regret(drawn, GateConfig()), strict=True):
        found = Gate(GateConfig()).regret(evidence(d), 0, saturated=False)
        assert (found is None) == (crossed > 512)
        assert found is None or f"on {crossed} probes" in found


def test_whole_runs_by_the_gate_itself_have_the_verdicts_that_the_simulation_counts():
    assert driven(1, 12, seed=1, effect=0.0)["differ"] == 0
    assert driven(1, 6, seed=2)["differ"] == 0


def test_a_gate_that_forgets_how_many_it_weighed_is_noticed(monkeypatch):
    class Forgetful(Gate):
        def decide(self, *args, **kwargs):
            self.ledger = self.ledger.model_copy(update={"weighed": 0})
            self._opened = None
            return super().decide(*args, **kwargs)

    monkeypatch.setattr(simulation, "Gate", Forgetful)
    assert driven(1, 12, seed=1, effect=0.0)["differ"] > 0


def test_the_chance_in_a_run_is_that_of_independent_candidates_at_their_places():
    """Two of four at the first place, one of four at the second: 1 - 1/2 * 3/4. Sums 2, 1, 0, 0: deviation .829."""
    happened = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=bool)
    assert simulation.chance_in_run(happened) == (pytest.approx(0.625), pytest.approx(0.829156 / 2))


def test_the_worst_permitted_candidate_is_rarely_promoted_in_a_whole_run():
    result = simulate(1500, 100, seed=1)
    assert (result["effect"], result["simulated"], result["candidates"]) == (-0.03, 1500, 100)
    assert 0 < result["promoted_in_run_ratio"] <= 0.02
    assert simulate(200, 100, seed=1, effect=0.1)["promoted_in_run_ratio"] > 0.999


def test_below_the_floor_a_run_rarely_promotes_anything():
    assert 0 < simulate_saturated(1000, 20, seed=1)["promoted_in_run_ratio"] <= 0.05


def test_wealth_rarely_crosses_without_replacement_even_when_the_set_is_small():
    d = draw(-0.03, 4000, np.random.default_rng(2), 0.3, 400)
    assert population(-0.03, 0.3, 400).sum() == -12
    assert (first(wealth(d, 0.03), [1 / 0.05]) <= 400).mean() <= 0.05


def test_a_large_loss_is_found_within_two_hundred_and_fifty_probes_by_the_median():
    result = power(-0.06, 500, seed=3)
    assert result["median_probes"] <= 250 and result["rejected"] > 0.99


def test_gains_and_equals_pass():
    assert power(0.10, 300, seed=3)["median_probes"] <= 100
    assert power(0.03, 400, seed=3)["promoted"] > 0.99
    assert power(0.0, 300, seed=3)["promoted"] > 0.9
