"""Decides whether a candidate may answer users: a non-inferiority test against the champion, by betting.

For each probe, D in {-1, 0, 1} is the candidate's hit minus the champion's hit. The null hypothesis is "the candidate
is more than delta worse". A bettor against it stakes a part lambda of its wealth on every probe. If the null is true,
the wealth ever reaches 1/alpha with probability at most alpha (Ville's inequality), no matter how often the gate looks.

    E_n = mean over lambda of prod_i (1 + lambda (D_i + delta) / (1 + delta))

Source: Waudby-Smith and Ramdas, arXiv:2010.09686 (capital processes); Ramdas et al., arXiv:2210.01948 (e-processes).
There are finitely many probes, drawn without replacement in random order. The process is the one for independent draws;
without replacement it is conservative: in the Brownian limit a bridge crosses a line a + bt with probability
exp(-2a(a + b)), a free path with probability exp(-2ab). bench/_gate_simulation.py measures it.

**Saturated anchors.** Anchors are answers of the base model; an audit found the fraction p of them right. A champion
that agrees with p - delta of the anchors cannot show more improvement on them: a better candidate disagrees with wrong
anchors, so the comparison with the champion would falsely reject it. From then on a floor applies, which is fixed for
the whole run:

    floor = p - 2 delta        F_n = mean over lambda of prod_i (1 + lambda (x_i - floor) / floor)

where x_i is the candidate's hit. A candidate is promoted if it is at most delta worse than the champion *or* not below
the floor: if the mean of E_n and F_n reaches 1/alpha_j. If both claims are false, E_n and F_n each have mean at most 1.
Their mean then reaches 1/alpha_j with probability at most alpha_j, and over the run with probability at most alpha. A
candidate is rejected if the evidence shows that it is below the floor. No candidate becomes champion, because more
agreement is not evidence of improvement. The floor does not move, so small losses cannot add up below it. Saturation is
determined before a candidate is weighed, from the champion's answers so far.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from core.config import GateConfig
from core.errors import VersionError
from core.messages import Decision, Evidence, PolicyRef
from core.store.facts import GateLedger

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
SATURATION_PROBES = 256
"""Minimum number of probes for an estimate of the champion's agreement (standard error below 2 points)."""

Floats = npt.NDArray[np.float64]


def log_wealth(d: npt.ArrayLike, delta: float) -> Floats:
    """Running log of E_n against the null "E[D] <= -delta", nats. d: [..., n] in [-1, 1]; returns log E_1 to log E_n.

    Requires 0 <= delta < 1. delta = 0: the null is "not better". For the null "not worse" use `log_wealth(-d, 0)`."""
    return log_capital((np.asarray(d, dtype=np.float64) + delta) / (1 + delta))


def log_wealth_above(hits: npt.ArrayLike, floor: float) -> Floats:
    """Running log of F_n against the null "E[x] <= floor". hits: [..., n] in [0, 1], 0 < floor < 1."""
    return log_capital((np.asarray(hits, dtype=np.float64) - floor) / floor)


def log_wealth_below(hits: npt.ArrayLike, floor: float) -> Floats:
    """As `log_wealth_above`, against the null "E[x] >= floor"."""
    return log_capital((floor - np.asarray(hits, dtype=np.float64)) / (1 - floor))


def log_wealth_worse(d: npt.ArrayLike, delta: float) -> Floats:
    """Against the null "E[D] >= -delta": evidence that the candidate is more than delta worse."""
    return log_capital((-np.asarray(d, dtype=np.float64) - delta) / (1 + delta))


def log_capital(gains: Floats) -> Floats:
    """Running log of the mean over STAKES of prod (1 + stake * gain). gains: [..., n], at least -1, with mean at most 0
    under the null hypothesis."""
    paths = np.stack([np.cumsum(np.log1p(stake * gains), axis=-1) for stake in STAKES])
    peak = paths.max(axis=0)
    return peak + np.log(np.exp(paths - peak).mean(axis=0))


def e_value(d: Sequence[int], delta: float) -> float:
    """E_n after all of d; 1 before the first probe. Large values are capped at exp(709), so exp never overflows."""
    if len(d) == 0:
        return 1.0
    return float(np.exp(np.minimum(log_wealth(d, delta)[-1], 709.0)))


def alpha_of(j: int, alpha: float) -> float:
    """Error probability allowed for the j-th candidate (from 1): alpha * 6 / (pi^2 j^2). Sums to alpha over all j."""
    return alpha * 6 / (math.pi**2 * j**2)


def first_crossing(path: Floats, level: float) -> int | None:
    """Number of probes at which `path` [n] first reaches log(level); None if it never does."""
    reached = np.flatnonzero(path >= math.log(level))
    return int(reached[0]) + 1 if len(reached) else None


class Gate:
    """Weighs one candidate at a time against the champion. Store `ledger` durably with every verdict and after `crown`.

    Two bounds hold over the whole run, on the distribution of the probes. The probability that any promoted version is
    more than delta worse than the champion is at most alpha. The probability that the champion ever moves to a version
    that is not better is at most alpha."""

    def __init__(self, config: GateConfig, ledger: GateLedger | None = None) -> None:
        self.config = config
        self.ledger = ledger or GateLedger()
        self._opened: PolicyRef | None = None
        """The candidate that is being weighed. A weighing that a crash interrupts is still counted once, because the
        ledger is stored only with a verdict."""

    def saturated(self, certified: bool) -> bool:
        """Whether the champion agrees with at least anchor_precision - delta of the anchors. False for answer keys."""
        precision, ledger = self.config.anchor_precision, self.ledger
        if certified or precision is None or ledger.champion_asked < min(SATURATION_PROBES, self.config.max_probes):
            return False
        return ledger.champion_hits / ledger.champion_asked >= precision - self.config.delta

    @property
    def floor(self) -> float:
        """With saturated anchors, the agreement that a candidate must reach."""
        return max(0.01, (self.config.anchor_precision or 0.0) - 2 * self.config.delta)

    def decide(self, evidence: Evidence, exhausted: bool = False, broken: str | None = None) -> Decision | None:
        """The verdict, or None if more probes are needed. `evidence` has all probes of this candidate so far.

        `exhausted`: there are no more probes. Then, as at config.max_probes, an undecided candidate gets a hold.
        `broken`: the guard that the candidate breaks; it is rejected. Before guards.min_probes probes no candidate is
        promoted, unless the probes are exhausted.
        Raises: VersionError if the evidence is against another champion; ValueError if it is not paired."""
        self._check(evidence)
        if not self.config.enabled:
            return _decision(evidence, "promote", "the gate is off: promoted without being weighed", by="nobody")
        self._open(evidence.candidate)
        d = differences(evidence)
        exhausted = exhausted or len(d) >= self.config.max_probes
        decision = self._weigh(evidence, d) if len(d) else None
        if broken is not None:
            decision = _decision(evidence, "reject", broken)
        elif decision is not None and decision.verdict == "promote" and not exhausted:
            decision = decision if len(d) >= self.config.guards.min_probes else None
        if decision is None and exhausted:
            reason = "there is nothing to weigh with" if len(d) == 0 else f"undecided after all {len(d)} probes"
            decision = _decision(evidence, "hold", reason)
        if decision is not None:
            self._close(decision, evidence)
        return decision

    def crown(self, evidence: Evidence) -> bool | None:
        """After a promotion that left the champion in place: whether the promoted version is better, on the probes of
        its weighing and all later ones. True: it is now the champion. None: ask more probes. False: stop asking.

        Uses the same process, path and share of alpha as `decide`. The process is valid at every look, so the gate may
        stop at any time; it stops when the wealth is at most 1 or after max_probes probes."""
        self._check(evidence)
        d = differences(evidence)
        path = log_wealth(d, 0.0)
        if first_crossing(path, 1 / alpha_of(self.ledger.weighed, self.config.alpha)) is not None:
            self.ledger = self.ledger.under(evidence.candidate).with_champion_hits(evidence.candidate_hits)
            return True
        if path[-1] <= 0.0 or len(d) >= self.config.max_probes:
            return False
        return None

    def regret(self, evidence: Evidence, since: int, saturated: bool) -> str | None:
        """The reason to roll back a promoted version, or None. Uses only the probes asked since its promotion (from
        index `since` on).

        A version at most delta worse than the champion is rolled back with probability at most 1 / rollback_at."""
        fresh = len(evidence.candidate_hits) - since
        if fresh <= 0:
            return None
        if saturated:
            path = log_wealth_below(evidence.candidate_hits[since:], self.floor)
            what = f"agrees with fewer than {self.floor:.1%} of the saturated anchors"
        else:
            path = log_wealth_worse(differences(evidence)[since:], self.config.delta)
            what = f"more than {self.config.delta:g} worse than the champion"
        crossed = first_crossing(path, self.config.rollback_at)
        if crossed is None:
            return None
        return f"{what} on {crossed} probes asked since (evidence {self.config.rollback_at:g} to 1)"

    def _weigh(self, evidence: Evidence, d: npt.NDArray[np.int8]) -> Decision | None:
        """The first crossing on the path decides, so the verdict does not depend on the number of looks."""
        if self.saturated(evidence.certified):
            return self._weigh_saturated(evidence, d)
        alpha = alpha_of(self.ledger.weighed, self.config.alpha)
        fit = first_crossing(log_wealth(d, self.config.delta), 1 / alpha)
        worse = first_crossing(log_wealth(-d, 0.0), self.config.reject_at)
        if worse is not None and (fit is None or worse < fit):
            reason = f"worse than the champion after {worse} probes (evidence {self.config.reject_at:g} to 1)"
            return _decision(evidence, "reject", reason)
        if fit is None:
            return None
        better = first_crossing(log_wealth(d, 0.0), 1 / alpha) is not None
        gain = "and better: the new champion" if better else "not shown to be better: the champion stays"
        reason = f"at most {self.config.delta:g} worse after {fit} probes (chance of error {alpha:.2g}), {gain}"
        return _decision(evidence, "promote", reason, new_champion=better)

    def _weigh_saturated(self, evidence: Evidence, d: npt.NDArray[np.int8]) -> Decision | None:
        alpha, floor = alpha_of(self.ledger.weighed, self.config.alpha), self.floor
        near = log_wealth(d, self.config.delta)
        fit = first_crossing(
            np.logaddexp(near, log_wealth_above(evidence.candidate_hits, floor)) - math.log(2), 1 / alpha
        )
        low = first_crossing(log_wealth_below(evidence.candidate_hits, floor), self.config.reject_at)
        rate = self.ledger.champion_hits / self.ledger.champion_asked
        why = f"anchors saturated (champion {rate:.1%}, {self.config.anchor_precision:.1%} are right)"
        if low is not None and (fit is None or low < fit):
            reason = f"agrees with fewer than {floor:.1%} after {low} probes (evidence {self.config.reject_at:g} to 1)"
            return _decision(evidence, "reject", f"{reason}; {why}", saturated=True)
        if fit is None:
            return None
        reason = f"not below {floor:.1%}, or at most {self.config.delta:g} worse, after {fit} probes"
        return _decision(
            evidence, "promote", f"{reason} (chance of error {alpha:.2g}); {why}: the champion stays", saturated=True
        )

    def _check(self, evidence: Evidence) -> None:
        if evidence.champion != self.ledger.champion:
            raise VersionError(
                f"the evidence is against {evidence.champion}, but the champion is {self.ledger.champion}; "
                "weigh the candidate again"
            )
        if len(evidence.candidate_hits) != len(evidence.champion_hits):
            raise ValueError(
                f"{len(evidence.candidate_hits)} outcomes of the candidate and {len(evidence.champion_hits)} of the "
                "champion are not pairs; ask both the same probes"
            )

    def _open(self, candidate: PolicyRef) -> None:
        if self._opened == candidate:
            return
        self._opened = candidate
        weighed = self.ledger.weighed + 1
        spent = self.ledger.superiority_spent + alpha_of(weighed, self.config.alpha)
        self.ledger = self.ledger.model_copy(update={"weighed": weighed, "superiority_spent": spent})

    def _close(self, decision: Decision, evidence: Evidence) -> None:
        ledger = self.ledger.with_champion_hits(evidence.champion_hits)
        if decision.new_champion:
            ledger = ledger.under(decision.candidate).with_champion_hits(evidence.candidate_hits)
        self.ledger, self._opened = ledger, None


def differences(evidence: Evidence) -> npt.NDArray[np.int8]:
    """D [n] in {-1, 0, 1}: the candidate's hit minus the champion's hit, in the order drawn."""
    candidate = np.array(evidence.candidate_hits, dtype=np.int8)
    return candidate - np.array(evidence.champion_hits, dtype=np.int8)


def _decision(evidence: Evidence, verdict: str, reason: str, **fields: bool | str) -> Decision:
    return Decision.model_validate(
        {
            "verdict": verdict,
            "candidate": evidence.candidate,
            "champion": evidence.champion,
            "reason": reason,
            "probes": len(evidence.candidate_hits),
            "certified": evidence.certified,
            "candidate_rate": _rate(evidence.candidate_hits),
            "champion_rate": _rate(evidence.champion_hits),
            **fields,
        }
    )


def _rate(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
