import math
import subprocess
import sys

import numpy as np
import pytest

from bench._gate_simulation import (
    HELD,
    PROMOTED,
    REJECTED,
    draw,
    draw_pairs,
    population,
    power,
    simulate,
    simulate_saturated,
    weigh_many,
    weigh_saturated,
)
from core.config import GateConfig
from core.errors import VersionError
from core.messages import BASE, Evidence, PolicyRef
from core.store.facts import GateLedger
from training.gate.gate import (
    STAKES,
    Gate,
    alpha_of,
    e_value,
    first_crossing,
    log_wealth,
    log_wealth_above,
    log_wealth_below,
    log_wealth_worse,
)


def evidence(d, version: int = 1, champion: PolicyRef = BASE, certified: bool = False) -> Evidence:
    pairs = {1: (True, False), 0: (True, True), -1: (False, True)}
    hits = [pairs[int(x)] for x in d]
    return Evidence(
        candidate=PolicyRef(version=version),
        champion=champion,
        candidate_hits=tuple(h[0] for h in hits),
        champion_hits=tuple(h[1] for h in hits),
        certified=certified,
    )


def test_wealth_is_the_mean_over_stakes_of_the_products():
    assert e_value([1], 0.0) == pytest.approx(1 + sum(STAKES) / 7)
    by_hand = sum((1 + s) * (1 - s * 0.97 / 1.03) * (1 + s * 0.03 / 1.03) for s in STAKES) / 7
    assert e_value([1, -1, 0], 0.03) == pytest.approx(by_hand)
    assert e_value([], 0.03) == 1.0
    assert e_value([1] * 5000, 0.0) > 1e300


def test_a_fair_game_keeps_the_expected_wealth_at_one():
    fair = [(1, 0.2), (0, 0.0), (-1, 0.8)]
    delta = 0.6
    assert sum(p * e_value([x], delta) for x, p in fair) == pytest.approx(1.0)
    assert sum(p * q * e_value([x, y], delta) for x, p in fair for y, q in fair) == pytest.approx(1.0)


def test_the_alphas_of_all_candidates_sum_to_alpha():
    assert alpha_of(1, 0.05) == pytest.approx(0.0303963, rel=1e-5)
    assert sum(alpha_of(j, 0.05) for j in range(1, 200_000)) == pytest.approx(0.05, rel=1e-4)


def test_a_crossing_is_found_at_its_first_probe():
    path = log_wealth(np.ones(20), 0.0)
    n = first_crossing(path, 20)
    assert n is not None and e_value([1] * n, 0.0) >= 20 > e_value([1] * (n - 1), 0.0)
    assert first_crossing(path, 1e300) is None


def test_a_much_better_candidate_is_promoted_and_becomes_the_champion():
    gate = Gate(GateConfig())
    assert gate.decide(evidence([1] * 30, certified=True)) is None, "promoted before guards.min_probes probes"
    decision = gate.decide(evidence([1] * 64, certified=True))
    assert decision is not None
    assert (decision.verdict, decision.new_champion, decision.certified) == ("promote", True, True)
    assert gate.ledger.champion == PolicyRef(version=1)
    assert (decision.candidate_rate, decision.champion_rate) == (1.0, 0.0)


def test_an_equal_candidate_is_promoted_without_moving_the_champion():
    gate = Gate(GateConfig())
    decision = gate.decide(evidence([0] * 400))
    assert decision is not None and decision.verdict == "promote" and not decision.new_champion
    assert gate.ledger.champion == BASE and gate.ledger.weighed == 1


def test_a_worse_candidate_is_rejected():
    decision = Gate(GateConfig()).decide(evidence([-1] * 20))
    assert decision is not None and decision.verdict == "reject"


def test_open_evidence_asks_for_more_and_at_the_last_probe_holds():
    gate = Gate(GateConfig(max_probes=60))
    d = [1, -1] * 30
    assert gate.decide(evidence(d[:20])) is None
    decision = gate.decide(evidence(d))
    assert decision is not None and decision.verdict == "hold"
    held = Gate(GateConfig()).decide(evidence([]), exhausted=True)
    assert held is not None and held.verdict == "hold" and "nothing to weigh" in held.reason


def test_every_candidate_ever_weighed_costs_alpha_and_looking_again_does_not():
    gate = Gate(GateConfig())
    for looks in (10, 20):
        assert gate.decide(evidence([0] * looks, version=1)) is None
    assert gate.ledger.weighed == 1
    gate.decide(evidence([0], version=2))
    assert gate.ledger.weighed == 2
    assert gate.ledger.superiority_spent == pytest.approx(alpha_of(1, 0.05) + alpha_of(2, 0.05))


def test_a_weighing_that_a_crash_cut_short_is_counted_anew():
    gate = Gate(GateConfig())
    gate.decide(evidence([0]))
    stored = GateLedger.model_validate_json(gate.ledger.model_dump_json())
    again = Gate(GateConfig(), stored)
    again.decide(evidence([0]))
    assert again.ledger.weighed == 2


def test_evidence_against_another_champion_is_refused():
    with pytest.raises(VersionError, match=r"the champion is policy@v0"):
        Gate(GateConfig()).decide(evidence([1], version=3, champion=PolicyRef(version=2)))


def test_a_gate_that_is_off_promotes_unweighed():
    decision = Gate(GateConfig(enabled=False)).decide(evidence([]))
    assert decision is not None and decision.verdict == "promote" and "off" in decision.reason


@pytest.mark.parametrize("effect", [0.1, 0.0, -0.06])
def test_the_simulation_decides_as_the_gate_does(effect):
    config = GateConfig()
    d = draw(effect, 12, np.random.default_rng(4), 0.2, 2000)
    verdicts = weigh_many(d, config, j=1)
    names = {"promote": PROMOTED, "reject": REJECTED, "hold": HELD}
    for row in range(12):
        gate = Gate(config)
        decision = None
        looks = 0
        while decision is None:
            looks += config.batch
            decision = gate.decide(evidence(d[row, :looks]))
        assert names[decision.verdict] == verdicts.verdict[row]
        assert decision.new_champion == bool(verdicts.better[row])
        assert decision.probes - config.batch < verdicts.probes[row] <= decision.probes


def test_the_worst_permitted_candidate_is_rarely_promoted_in_a_whole_run():
    result = simulate(runs=150, candidates=20, seed=1)
    assert result["effect"] == -0.03
    assert result["promoted_in_run_ratio"] <= 0.05


def test_wealth_rarely_crosses_without_replacement_even_when_the_set_is_small():
    d = draw(-0.03, 4000, np.random.default_rng(2), 0.3, 400)
    assert population(-0.03, 0.3, 400).sum() == -12
    crossed = (log_wealth(d, 0.03) >= math.log(1 / 0.05)).any(axis=-1)
    assert crossed.mean() <= 0.05


def test_a_large_loss_is_found_within_two_hundred_and_fifty_probes_by_the_median():
    result = power(-0.06, 1000, seed=3)
    assert result["median_probes"] <= 250 and result["rejected_ratio"] > 0.99


def test_gains_and_equals_pass():
    assert power(0.10, 1000, seed=3)["median_probes"] <= 100
    assert power(0.03, 1000, seed=3)["promoted_ratio"] > 0.99
    assert power(0.0, 500, seed=3)["promoted_ratio"] > 0.9


def test_the_pure_parts_import_neither_torch_nor_ray():
    names = (
        "training.gate.gate, training.gate.weighing, training.replay.backpressure, training.replay.replay, "
        "core.arrival_proof, bench._gate_simulation"
    )
    code = f"import sys, {names}; sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'vllm', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- saturated anchors, guards, watch --------------------------------------------------------------------------------

SATURATED = GateLedger(weighed=3, champion=PolicyRef(version=2), champion_asked=600, champion_hits=558)
PRECISION = GateConfig(anchor_precision=0.93)


def answered(candidate, champion, version: int = 3, certified: bool = False) -> Evidence:
    return Evidence(
        candidate=PolicyRef(version=version),
        champion=PolicyRef(version=2),
        candidate_hits=tuple(bool(x) for x in candidate),
        champion_hits=tuple(bool(x) for x in champion),
        certified=certified,
    )


def test_wealth_against_a_floor_is_the_mean_of_the_products_and_fair_at_the_floor():
    by_hand = sum((1 + s * 0.25) * (1 - s) for s in STAKES) / 7
    assert math.exp(log_wealth_above([1, 0], 0.8)[-1]) == pytest.approx(by_hand)
    assert math.exp(log_wealth_below([1, 0], 0.2)[-1]) == pytest.approx(by_hand)
    for wealth in (log_wealth_above, log_wealth_below):
        assert 0.8 * math.exp(wealth([1], 0.8)[0]) + 0.2 * math.exp(wealth([0], 0.8)[0]) == pytest.approx(1.0)
    worse = [math.exp(log_wealth_worse([x], 0.2)[0]) for x in (1, -1)]
    assert 0.4 * worse[0] + 0.6 * worse[1] == pytest.approx(1.0), "the wealth is not fair at E[D] = -delta"


def test_anchors_saturate_by_what_the_champion_answered_and_keys_never():
    assert Gate(PRECISION, SATURATED).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED).saturated(certified=True)
    assert not Gate(GateConfig(), SATURATED).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.model_copy(update={"champion_hits": 530})).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.under(PolicyRef(version=3))).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.model_copy(update={"champion_asked": 200, "champion_hits": 190})).saturated(
        False
    )


def test_the_ledger_learns_the_champions_agreement_from_each_weighing():
    gate = Gate(PRECISION, GateLedger(champion=PolicyRef(version=2)))
    gate.decide(answered([1] * 300, [1] * 270 + [0] * 30))
    assert (gate.ledger.champion, gate.ledger.champion_asked) == (PolicyRef(version=3), 300)
    assert gate.ledger.champion_hits == 300


def rates(candidate: float, champion: float, n: int, seed: int):
    rng = np.random.default_rng(seed)
    return rng.random(n) < candidate, rng.random(n) < champion


def test_at_saturation_a_peer_of_the_champion_is_promoted_says_so_and_is_not_crowned():
    verdicts = []
    for seed in range(40):
        gate = Gate(PRECISION, SATURATED)
        decision = gate.decide(answered(*rates(0.925, 0.93, 1200, seed)))
        assert decision is not None and not decision.new_champion and decision.saturated
        assert "anchors saturated (champion 93.0%" in decision.reason
        assert gate.ledger.champion == PolicyRef(version=2)
        verdicts.append(decision.verdict)
    assert verdicts.count("promote") == 40


def test_at_saturation_what_falls_below_the_floor_is_rejected():
    verdicts = [
        Gate(PRECISION, SATURATED).decide(answered(*rates(0.80, 0.93, 1200, seed)), exhausted=True)
        for seed in range(40)
    ]
    assert [v.verdict for v in verdicts if v is not None].count("reject") >= 39
    assert not any(v is None or v.verdict == "promote" for v in verdicts)


def test_a_broken_guard_rejects_whatever_the_probes_say():
    decision = Gate(GateConfig()).decide(evidence([1] * 100), broken="answers too much alike: entropy 0.10 nats")
    assert decision is not None and decision.verdict == "reject" and decision.reason.startswith("answers too much")


def test_a_promoted_version_that_falls_off_is_regretted_on_fresh_probes_only():
    gate = Gate(GateConfig())
    promoted = [1] * 100
    assert gate.regret(evidence(promoted), 100, saturated=False) is None
    assert gate.regret(evidence([-1] * 100), 100, saturated=False) is None, "probes from before the promotion were used"
    found = gate.regret(evidence([*promoted, *[-1] * 30]), 100, saturated=False)
    assert found is not None and "more than 0.03 worse than the champion on" in found
    assert gate.regret(evidence([*promoted, *[0] * 400]), 100, saturated=False) is None


def test_at_saturation_the_watch_asks_for_the_floor():
    gate = Gate(PRECISION, SATURATED)
    fine, fallen = [1] * 90 + [0] * 10, [0] * 40
    assert gate.regret(answered(fine * 3, [1] * 300), 100, saturated=True) is None
    found = gate.regret(answered([*fine, *fallen], [1] * 140), 100, saturated=True)
    assert found is not None and "fewer than 87.0% of the saturated anchors" in found


@pytest.mark.parametrize("rate", [0.93, 0.80])
def test_the_simulation_of_saturated_anchors_decides_as_the_gate_does(rate):
    rng = np.random.default_rng(3)
    hits, champion = draw_pairs(rate, 0.93, 8, rng, 2000)
    verdicts = weigh_saturated(hits, champion, PRECISION, j=4)
    names = {"promote": PROMOTED, "reject": REJECTED, "hold": HELD}
    for row in range(8):
        decision = Gate(PRECISION, SATURATED).decide(answered(hits[row], champion[row]), exhausted=True)
        assert decision is not None and names[decision.verdict] == verdicts.verdict[row]


def test_below_the_floor_a_run_rarely_promotes_anything():
    result = simulate_saturated(runs=100, candidates=20, seed=1)
    assert result["promoted_in_run_ratio"] <= 0.05
