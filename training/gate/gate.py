"""Decides whether a candidate may answer users: a non-inferiority test against the champion, by betting.

The rule itself is in training.gate.rule. `Gate` counts the candidates, spends the error budgets, and gives reasons.
Whether the anchors are saturated is determined before a candidate is weighed, from the champion's answers so far.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from core.config import GateConfig
from core.errors import VersionError
from core.messages import Decision, Evidence, PolicyRef
from core.messages.versions import SliceFound
from core.store.facts import GateLedger
from training.gate import rule, slices
from training.gate.sight import BLIND_PROBES, CLEAR, Sight

SATURATION_PROBES = 256
"""Minimum number of probes for an estimate of the champion's agreement (standard error below 2 points)."""


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

    def decide(
        self, evidence: Evidence, exhausted: bool = False, broken: str | None = None, sight: Sight = CLEAR
    ) -> Decision | None:
        """The verdict, or None if more probes are needed. `evidence` has all probes of this candidate so far.

        `exhausted`: there are no more probes. Then, as at config.max_probes, an undecided candidate gets a hold.
        `broken`: the guard that the candidate breaks; it is rejected. Before guards.min_probes probes no candidate is
        promoted, unless the probes are exhausted. `sight`: whether hits depend on the questions. Unless they do, nobody
        is promoted; if they surely do not, the candidate is held whatever the probes say.
        Raises: VersionError if the evidence is against another champion; ValueError if it is not paired."""
        self._check(evidence)
        if not self.config.enabled:
            return _decision(evidence, "promote", "the gate is off: promoted without being weighed", by="nobody")
        self._open(evidence.candidate)
        asked = len(evidence.candidate_hits)
        exhausted = exhausted or asked >= self.config.max_probes
        blind = sight.most <= self.config.delta
        decision = self._weigh(evidence) if asked and not blind else None
        found = slices.judged(evidence, self.config, self._alpha) if asked else {}
        fallen = next((name for name, each in found.items() if each.result == "worse"), None)
        if broken is not None:
            decision = _decision(evidence, "reject", broken)
        elif fallen is not None and not blind:
            decision = _decision(evidence, "reject", self._why_fallen(fallen, found[fallen]))
        elif decision is not None and decision.verdict == "promote":
            enough = exhausted or asked >= self.config.guards.min_probes
            kept = all(each.result == "kept" for each in found.values())
            decision = decision if enough and kept and sight.least > self.config.delta else None
        if decision is None and (exhausted or (blind and asked >= BLIND_PROBES)):
            decision = _decision(evidence, "hold", self._why_held(asked, sight, evidence.certified, found))
        if decision is not None:
            decision = _with_slices(decision, found)
            self._close(decision, evidence)
        return decision

    def crown(self, evidence: Evidence) -> bool | None:
        """After a promotion that left the champion in place: whether the promoted version is better, on the probes of
        its weighing and all later ones. True: it is now the champion. None: ask more probes. False: stop asking.

        Uses the same process, path and share of alpha as `decide`. The process is valid at every look, so the gate may
        stop at any time; it stops when the wealth is at most 1 or after max_probes probes."""
        self._check(evidence)
        d = differences(evidence)
        path = rule.wealth(d, 0.0)
        if path.max() >= 1 / self._alpha:
            self.ledger = self.ledger.under(evidence.candidate).with_champion_hits(evidence.candidate_hits)
            return True
        if path[-1] <= 1.0 or len(d) >= self.config.max_probes:
            return False
        return None

    def regret(self, evidence: Evidence, since: int, saturated: bool) -> str | None:
        """The reason to roll back a promoted version, or None. Uses only the probes asked since its promotion (from
        index `since` on)."""
        fresh = len(evidence.candidate_hits) - since
        if fresh <= 0:
            return None
        if (fallen := slices.fell(evidence, since, self.config)) is not None:
            return fallen
        if saturated:
            crossed = rule.regret_saturated(_bits(evidence.candidate_hits[since:]), self.config)
            what = f"agrees with fewer than {rule.floor_of(self.config):.1%} of the saturated anchors"
        else:
            crossed = rule.regret(differences(evidence)[since:], self.config)
            what = f"more than {self.config.delta:g} worse than the champion"
        if crossed > fresh:
            return None
        return f"{what} on {crossed} probes asked since (evidence {self.config.rollback_at:g} to 1)"

    @property
    def _alpha(self) -> float:
        """The error probability of the candidate weighed last."""
        return rule.alpha_of(self.ledger.weighed, self.config.alpha)

    def _weigh(self, evidence: Evidence) -> Decision | None:
        """The first crossing on the path decides, so the verdict does not depend on the number of looks."""
        saturated = self.saturated(evidence.certified)
        if saturated:
            hits, theirs = _bits(evidence.candidate_hits), _bits(evidence.champion_hits)
            found = rule.weigh_saturated(hits, theirs, self.config, [self._alpha])
        else:
            found = rule.weigh(differences(evidence), self.config, [self._alpha])
        verdict, probes, better = int(found.verdict[0]), int(found.probes[0]), bool(found.better[0])
        if verdict == rule.HOLD:
            return None
        rejected = verdict == rule.REJECT
        reason = (self._why_saturated if saturated else self._why)(rejected, probes, better)
        return _decision(
            evidence, "reject" if rejected else "promote", reason, new_champion=better, saturated=saturated
        )

    def _why(self, rejected: bool, probes: int, better: bool) -> str:
        if rejected:
            return f"worse than the champion after {probes} probes (evidence {self.config.reject_at:g} to 1)"
        gain = "and better: the new champion" if better else "not shown to be better: the champion stays"
        return f"at most {self.config.delta:g} worse after {probes} probes (chance of error {self._alpha:.2g}), {gain}"

    def _why_saturated(self, rejected: bool, probes: int, better: bool) -> str:
        floor, rate = rule.floor_of(self.config), self.ledger.champion_hits / self.ledger.champion_asked
        why = f"anchors saturated (champion {rate:.1%}, {self.config.anchor_precision:.1%} are right)"
        if rejected:
            reason = f"agrees with fewer than {floor:.1%} after {probes} probes"
            return f"{reason} (evidence {self.config.reject_at:g} to 1); {why}"
        reason = f"not below {floor:.1%}, or at most {self.config.delta:g} worse, after {probes} probes"
        return f"{reason} (chance of error {self._alpha:.2g}); {why}: the champion stays"

    def _why_fallen(self, name: str, found: SliceFound) -> str:
        return (
            f"more than {self.config.slices.delta:g} worse than the champion on a slice ({slices.shown(name, found)})"
        )

    def _why_held(self, asked: int, sight: Sight, certified: bool, found: dict[str, SliceFound]) -> str:
        if asked == 0:
            return "there is nothing to weigh with"
        what = "keys" if certified else "anchors"
        if sight.most <= self.config.delta:
            return f"the {what} look broken: {sight.why}"
        if sight.least <= self.config.delta:
            return f"the {what} look broken, or are too few: {sight.why}"
        open_slices = [slices.shown(name, each) for name, each in found.items() if each.result == "open"]
        why = f"undecided after all {asked} probes"
        return f"{why}, and on {'; '.join(open_slices)}: bring more questions of these slices" if open_slices else why

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
        spent = self.ledger.superiority_spent + rule.alpha_of(weighed, self.config.alpha)
        self.ledger = self.ledger.model_copy(update={"weighed": weighed, "superiority_spent": spent})

    def _close(self, decision: Decision, evidence: Evidence) -> None:
        ledger = self.ledger.with_champion_hits(evidence.champion_hits)
        if decision.new_champion:
            ledger = ledger.under(decision.candidate).with_champion_hits(evidence.candidate_hits)
        self.ledger, self._opened = ledger, None


def _with_slices(decision: Decision, found: dict[str, SliceFound]) -> Decision:
    """The decision with what was found on slices, and with the worst of them in the reason for a promotion."""
    name = slices.worst(found)
    if name is None:
        return decision
    said = f"{decision.reason}; worst slice {slices.shown(name, found[name])}"
    reason = said if decision.verdict == "promote" else decision.reason
    return decision.model_copy(update={"slices": found, "reason": reason})


def differences(evidence: Evidence) -> npt.NDArray[np.int8]:
    """D [n] in {-1, 0, 1}: the candidate's hit minus the champion's hit, in the order drawn."""
    return _bits(evidence.candidate_hits) - _bits(evidence.champion_hits)


def _bits(hits: Sequence[bool]) -> npt.NDArray[np.int8]:
    return np.array(hits, dtype=np.int8)


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
