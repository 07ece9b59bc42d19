import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from core.config import GateConfig, GuardsConfig
from core.errors import VersionError
from core.messages import BASE, Evidence, PolicyRef
from core.store.facts import GateLedger
from training.gate.gate import Gate
from training.gate.rule import alpha_of
from training.gate.sight import Sight


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


def test_a_much_better_candidate_is_promoted_and_becomes_the_champion():
    gate = Gate(GateConfig())
    assert gate.decide(evidence([1] * 30, certified=True)) is None, "promoted before guards.min_probes probes"
    decision = gate.decide(evidence([1] * 64, certified=True))
    assert decision is not None
    assert (decision.verdict, decision.new_champion, decision.certified) == ("promote", True, True)
    assert gate.ledger.champion == PolicyRef(version=1)
    assert (decision.candidate_rate, decision.champion_rate) == (1.0, 0.0)
    assert decision.reason.endswith(", and better: the new champion")


def test_an_equal_candidate_is_promoted_without_moving_the_champion():
    gate = Gate(GateConfig())
    decision = gate.decide(evidence([0] * 400))
    assert decision is not None and decision.verdict == "promote" and not decision.new_champion
    assert decision.reason.endswith(", not shown to be better: the champion stays")
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
    assert (held.candidate_rate, held.champion_rate, held.probes) == (0.0, 0.0, 0)


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

    with pytest.raises(VersionError, match=r"the champion is policy@v0"):
        Gate(GateConfig()).crown(evidence([1] * 400, version=3, champion=PolicyRef(version=2)))


def test_a_gate_that_is_off_promotes_unweighed():
    decision = Gate(GateConfig(enabled=False)).decide(evidence([]))
    assert decision is not None and decision.verdict == "promote" and "off" in decision.reason


def test_the_pure_parts_import_neither_torch_nor_ray():
    names = (
        "training.gate.gate, training.gate.weighing, training.replay.backpressure, training.replay.replay, "
        "core.arrival_proof, bench._gate_simulation"
    )
    code = f"import sys, {names}; sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'vllm', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- the budgets, on paths that end just before and just at their level -----------------------------------------------

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # written again: a changed stake is a changed gate


def level(j: int) -> float:
    """1 / alpha_j at alpha .05, by hand: pi^2 j^2 / 6 / .05."""
    return math.pi**2 * j**2 / 6 / 0.05


def first_n(wealth: Callable[[int], float], needed: float) -> int:
    return next(n for n in range(1, 2000) if wealth(n) >= needed)


def bet(gain: float, n: int) -> float:
    """The mean wealth after n times the same gain."""
    return sum((1 + stake * gain) ** n for stake in STAKES) / len(STAKES)


def after(rejected: int, config: GateConfig, ledger: GateLedger) -> Gate:
    """A gate that weighed so many bad candidates, restarted after each."""
    for version in range(10, 10 + rejected):
        gate = Gate(config, GateLedger.model_validate_json(ledger.model_dump_json()))
        decision = gate.decide(evidence([-1] * 30, version, ledger.champion))
        assert decision is not None and decision.verdict == "reject"
        ledger = gate.ledger
    return Gate(config, ledger)


@pytest.mark.parametrize("j", [1, 5, 50])
def test_the_jth_candidate_is_promoted_at_the_level_of_the_jth(j):
    gate = after(j - 1, GateConfig(), GateLedger())
    n = first_n(lambda n: bet(0.03 / 1.03, n), level(j))
    assert gate.decide(evidence([0] * (n - 1))) is None
    decision = gate.decide(evidence([0] * n))
    assert decision is not None and decision.verdict == "promote" and not decision.new_champion
    assert gate.ledger.weighed == j
    assert gate.ledger.superiority_spent == pytest.approx(sum(1 / level(i) for i in range(1, j + 1)))


@pytest.mark.parametrize("j", [1, 5, 50])
def test_the_jth_candidate_becomes_champion_at_the_level_of_the_jth(j):
    gate = after(j - 1, GateConfig(), GateLedger())
    ties = [0] * first_n(lambda n: bet(0.03 / 1.03, n), level(j))
    assert gate.decide(evidence(ties)) is not None
    wins = first_n(lambda n: bet(1.0, n), level(j))
    assert gate.crown(evidence([*ties, *[1] * (wins - 1)])) is None
    assert gate.crown(evidence([*ties, *[1] * wins])) is True
    assert gate.ledger.champion == PolicyRef(version=1) and gate.ledger.weighed == j


@pytest.mark.parametrize("j", [1, 5, 50])
def test_a_promotion_that_crowns_at_once_needs_the_level_of_the_jth_twice(j):
    wins = first_n(lambda n: bet(1.0, n), level(j))
    ties = [0] * first_n(lambda n: bet(0.03 / 1.03, n), level(j))
    for more, crowned in ((wins - 1, False), (wins, True)):
        decision = after(j - 1, GateConfig(), GateLedger()).decide(evidence([1] * more + ties))
        assert decision is not None and (decision.verdict, decision.new_champion) == ("promote", crowned)


@pytest.mark.parametrize("j", [1, 5, 50])
def test_at_saturation_the_mean_of_both_wealths_reaches_the_level_of_the_jth(j):
    config = GateConfig(anchor_precision=0.93, guards=GuardsConfig(min_probes=16))
    saturated = GateLedger(champion=PolicyRef(version=2), champion_asked=600, champion_hits=558)
    gate = after(j - 1, config, saturated)

    def mean(n: int) -> float:
        return (bet(0.03 / 1.03, n) + bet(0.13 / 0.87, n)) / 2

    n = first_n(mean, level(j))
    assert gate.decide(evidence([0] * (n - 1), 3, PolicyRef(version=2))) is None
    decision = gate.decide(evidence([0] * n, 3, PolicyRef(version=2)))
    assert decision is not None and decision.verdict == "promote" and decision.saturated


@pytest.mark.parametrize("reject_at", [20, 50, 100])
def test_a_rejection_needs_the_evidence_that_is_set(reject_at):
    gate, n = Gate(GateConfig(reject_at=reject_at)), first_n(lambda n: bet(1.0, n), reject_at)
    assert gate.decide(evidence([-1] * (n - 1))) is None
    decision = gate.decide(evidence([-1] * n))
    assert decision is not None and decision.verdict == "reject"


@pytest.mark.parametrize("rollback_at", [20, 100, 1000])
@pytest.mark.parametrize("saturated", [False, True])
def test_a_rollback_needs_the_evidence_that_is_set(rollback_at, saturated):
    gate = Gate(GateConfig(anchor_precision=0.93, rollback_at=rollback_at))
    gain = 0.87 / 0.13 if saturated else 0.97 / 1.03
    n = first_n(lambda n: bet(gain, n), rollback_at)
    promoted = [1] * 100
    assert gate.regret(evidence([*promoted, *[-1] * (n - 1)]), 100, saturated) is None
    found = gate.regret(evidence([*promoted, *[-1] * n]), 100, saturated)
    assert found is not None and found.endswith(f"on {n} probes asked since (evidence {rollback_at} to 1)")


# --- probes that show nothing ----------------------------------------------------------------------------------------

BLIND, UNSURE, SEEING = Sight(0.0, 0.03, "none was hit"), Sight(0.03, 0.2, "few were hit"), Sight(0.031, 0.2, "")


def test_ties_promote_only_if_hits_depend_on_the_questions():
    for certified, what in ((True, "keys"), (False, "anchors")):
        gate = Gate(GateConfig())
        assert gate.decide(evidence([0] * 255, certified=certified), sight=BLIND) is None
        held = gate.decide(evidence([0] * 256, certified=certified), sight=BLIND)
        assert held is not None and held.verdict == "hold"
        assert held.reason == f"the {what} look broken: none was hit"
    gate = Gate(GateConfig())
    assert gate.decide(evidence([0] * 400), sight=UNSURE) is None
    held = gate.decide(evidence([0] * 400), exhausted=True, sight=UNSURE)
    assert held is not None and held.verdict == "hold"
    assert held.reason == "the anchors look broken, or are too few: few were hit"
    promoted = Gate(GateConfig()).decide(evidence([0] * 400), sight=SEEING)
    assert promoted is not None and promoted.verdict == "promote"


def test_probes_that_show_nothing_reject_nobody_but_guards_do():
    gate = Gate(GateConfig())
    assert gate.decide(evidence([-1] * 60), sight=BLIND) is None
    found = gate.decide(evidence([-1] * 60), broken="answers that cannot be read", sight=BLIND)
    assert found is not None and (found.verdict, found.reason) == ("reject", "answers that cannot be read")
    worse = Gate(GateConfig()).decide(evidence([-1] * 60), sight=UNSURE)
    assert worse is not None and worse.verdict == "reject"


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


def test_anchors_saturate_by_what_the_champion_answered_and_keys_never():
    assert Gate(PRECISION, SATURATED).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED).saturated(certified=True)
    assert not Gate(GateConfig(), SATURATED).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.model_copy(update={"champion_hits": 530})).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.under(PolicyRef(version=3))).saturated(certified=False)
    assert not Gate(PRECISION, SATURATED.model_copy(update={"champion_asked": 200, "champion_hits": 190})).saturated(
        False
    )


@pytest.mark.parametrize(("hit", "why"), [(0.5, "agrees with fewer than 87.0%"), (1.0, "not below 87.0%")])
def test_a_decision_on_saturated_anchors_says_what_it_was_about(hit: float, why: str) -> None:
    hits = [float(i % 2 < 2 * hit - 0.5 or hit == 1) for i in range(600)]
    decision = Gate(PRECISION, SATURATED).decide(answered(hits, [1] * 600))
    assert decision is not None and decision.saturated, decision
    assert decision.verdict == ("reject" if hit < 1 else "promote") and why in decision.reason


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
