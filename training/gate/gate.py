"""Whether a candidate may answer users: non-inferiority to the champion, tested by betting.

Per probe D in {-1, 0, 1} is the candidate's hit less the champion's. A bettor who doubts "the candidate is more than
delta worse" stakes a part lambda of its wealth on every probe; by Ville's inequality its wealth ever reaches 1/alpha
with chance at most alpha when the doubt is unfounded, however often one looks.

    E_n = mean over lambda of prod_i (1 + lambda (D_i + delta) / (1 + delta))

Source: Waudby-Smith and Ramdas, arXiv:2010.09686 (capital processes); Ramdas et al., arXiv:2210.01948 (e-processes).
The probes are finitely many and drawn without replacement in random order. The process is the one for independent
draws; without replacement it is conservative: in the Brownian limit a bridge crosses a line a + bt with chance
exp(-2a(a + b)), a free path with exp(-2ab). gate_simulation measures it.

**Saturated anchors.** Anchors are answers of the base, of which an audit found the part p right. A champion that agrees
with p - delta of them has nothing left to show there: who gets better can only disagree with wrong ones, so to be as
good as the champion would be required and falsely denied. From then on the floor is fixed for the whole run:

    floor = p - 2 delta        F_n = mean over lambda of prod_i (1 + lambda (x_i - floor) / floor)

with x_i the candidate's hit. Promoted is who is at most delta worse than the champion *or* not below the floor: the
mean of E_n and F_n reaches 1/alpha_j. Where both are false each has mean at most 1, so the mean crosses with chance at
most alpha_j, and over the run at most alpha. Rejected is who shows to be below the floor. Nobody becomes champion: more
agreement would be no evidence of anything, and since the floor does not move, small losses cannot add up below it.
Whether the anchors are saturated is settled before a candidate is weighed, by what the champion answered until then.
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
"""The champion's agreement is believed from so many probes on (standard error below 2 points)."""

Floats = npt.NDArray[np.float64]


def log_wealth(d: npt.ArrayLike, delta: float) -> Floats:
    """Running log of E_n against "E[D] <= -delta", nats. d: [..., n] in [-1, 1]; returns [..., n], log E_1 to log E_n.

    Requires 0 <= delta < 1. delta = 0 doubts "not better"; the mirror, for "not worse", is `log_wealth(-d, 0)`."""
    return log_capital((np.asarray(d, dtype=np.float64) + delta) / (1 + delta))


def log_wealth_above(hits: npt.ArrayLike, floor: float) -> Floats:
    """Running log of F_n against "E[x] <= floor". hits: [..., n] in [0, 1], 0 < floor < 1."""
    return log_capital((np.asarray(hits, dtype=np.float64) - floor) / floor)


def log_wealth_below(hits: npt.ArrayLike, floor: float) -> Floats:
    """The mirror, against "E[x] >= floor"."""
    return log_capital((floor - np.asarray(hits, dtype=np.float64)) / (1 - floor))


def log_wealth_worse(d: npt.ArrayLike, delta: float) -> Floats:
    """Against "E[D] >= -delta": evidence that the candidate is more than delta worse."""
    return log_capital((-np.asarray(d, dtype=np.float64) - delta) / (1 + delta))


def log_capital(gains: Floats) -> Floats:
    """Running log of the mean over STAKES of prod (1 + stake * gain). gains: [..., n], at least -1, and with mean at
    most 0 under the doubt that is to be overcome."""
    paths = np.stack([np.cumsum(np.log1p(stake * gains), axis=-1) for stake in STAKES])
    peak = paths.max(axis=0)
    return peak + np.log(np.exp(paths - peak).mean(axis=0))


def e_value(d: Sequence[int], delta: float) -> float:
    """E_n after all of d; 1 before the first probe. Huge values are infinite, never an error."""
    if len(d) == 0:
        return 1.0
    return float(np.exp(np.minimum(log_wealth(d, delta)[-1], 709.0)))


def alpha_of(j: int, alpha: float) -> float:
    """The error allowed to the j-th candidate (from 1): alpha * 6 / (pi^2 j^2), which sums to alpha over all j."""
    return alpha * 6 / (math.pi**2 * j**2)


def first_crossing(path: Floats, level: float) -> int | None:
    """Probes seen when `path` [n] first reached log(level); None if it never did."""
    reached = np.flatnonzero(path >= math.log(level))
    return int(reached[0]) + 1 if len(reached) else None


class Gate:
    """Weighs one candidate at a time against the champion. Keep `ledger` durably after every call of `decide`.

    A promoted version is more than delta worse than the champion with chance at most alpha over the whole run, and the
    champion ever moves to a version that is not better with chance at most alpha, on the distribution of the probes."""

    def __init__(self, config: GateConfig, ledger: GateLedger | None = None) -> None:
        self.config = config
        self.ledger = ledger or GateLedger()
        self._opened: PolicyRef | None = None
        """Who is being weighed. After a restart it is counted once all the same: the ledger is kept with a verdict."""

    def saturated(self, certified: bool) -> bool:
        """Whether the champion agrees with as many anchors as are right, less delta. Answer keys never saturate."""
        precision, ledger = self.config.anchor_precision, self.ledger
        if certified or precision is None or ledger.champion_asked < min(SATURATION_PROBES, self.config.max_probes):
            return False
        return ledger.champion_hits / ledger.champion_asked >= precision - self.config.delta

    @property
    def floor(self) -> float:
        """Agreement below which nothing is promoted once the anchors are saturated."""
        return max(0.01, (self.config.anchor_precision or 0.0) - 2 * self.config.delta)

    def decide(self, evidence: Evidence, exhausted: bool = False, broken: str | None = None) -> Decision | None:
        """The verdict, or None: look again with more probes. Evidence holds all probes of this candidate so far.

        `exhausted` says that there are no more probes; then, as at config.max_probes, an open question is a Hold.
        `broken` is the guard that the candidate breaks: a rejection. Nobody is promoted before the guards may speak.
        Raises: VersionError when the evidence is against another champion; ValueError when it is not paired."""
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
        """After a promotion that left the champion in place: whether the promoted version is better, on all probes of
        its weighing and those asked since. True makes it the champion; None: ask more; False: nothing speaks for it.

        The same process, path and share of alpha as in `decide`. When to stop asking is free: the process is valid at
        every look, so what looks no better than a coin's luck is left alone."""
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
        """Why a promoted version should not be served any longer, from the probes asked since its promotion (from
        number `since` on); None while nothing says so.

        A version at most delta worse than the champion is called back with chance at most 1 in `rollback_at`."""
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
        """Whichever comes first on the path decides, so that the verdict does not depend on how often one looks."""
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
                f"the evidence is against {evidence.champion}, the champion is {self.ledger.champion}; weigh it anew"
            )
        if len(evidence.candidate_hits) != len(evidence.champion_hits):
            raise ValueError(
                f"{len(evidence.candidate_hits)} outcomes of the candidate and {len(evidence.champion_hits)} of the "
                "champion are no pairs; ask both the same probes"
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
    """D [n] in {-1, 0, 1}: the candidate's hit less the champion's, in the order drawn."""
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
