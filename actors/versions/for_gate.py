"""The versions port for the evaluator: it gets candidates here and delivers the gate's decisions."""

from actors.runtime.ports import GatePort, Pairing
from actors.runtime.statuses import VersionsStatus
from actors.versions.register import Register
from actors.versions.replicas import Replicas
from actors.versions.status import versions_status
from core.errors import Unavailable
from core.messages import Decision
from core.store.facts import DueRollback, GateLedger, Watched
from core.store.records import Record, message


class VersionsForGate(GatePort):
    def __init__(self, register: Register, replicas: Replicas, plateau: int | None) -> None:
        """`plateau`: learning pauses after this many candidates in a row without a new champion; None: never."""
        self._register = register
        self._replicas = replicas
        self._plateau = plateau

    async def next_candidate(self, wait_s: float) -> Pairing | None:
        self._register.check_started()
        lineage = self._register.lineage
        if not await self._register.comes_true(lambda: lineage.candidate is not None, wait_s):
            return None
        candidate = lineage.candidate
        assert candidate is not None
        return Pairing(candidate=candidate, champion=lineage.champion, ledger=self._register.ledger)

    async def decide(self, decision: Decision, ledger: GateLedger, watch: Watched | None = None) -> bool:
        register, lineage = self._register, self._register.lineage
        register.check_started()
        version = decision.candidate.version
        if lineage.decisions.get(version) == decision:
            await register.decide()
            return True
        if lineage.states.get(version) == "published":  # since the restart of this actor
            raise Unavailable(f"v{version} is being proven again after a restart; try again")
        if lineage.states.get(version) != "proven" or decision.champion != lineage.champion:
            # count the candidate, but ignore any champion that this decision would have made
            await register.keep([register.account(ledger)])
            return False
        verdicts = lineage.decide(decision)
        register.metrics.count("verdicts_total", verdict=decision.verdict)
        kept = [] if watch is None else [watch.record()]
        await register.decide(verdicts, [*self._records(decision, ledger), *kept])
        if decision.verdict == "reject":
            await register.slow_down()
        return True

    def _records(self, decision: Decision, ledger: GateLedger) -> list[Record]:
        about = {
            "version": decision.candidate.version,
            "champion": decision.champion.version,
            "standing": decision.standing,
            **decision.model_dump(mode="json", exclude={"candidate", "champion"}),
        }
        return [
            message("decisions", str(decision.candidate), str(decision.champion), decision),
            self._register.account(ledger),
            self._register.event("decided", **about),
        ]

    async def weighed(self) -> None:
        self._register.check_started()
        without_gain = self._register.lineage.without_gain
        if self._plateau is not None and without_gain >= self._plateau:
            await self._register.learning.pause(f"{without_gain} candidates in a row brought no gain")

    async def pause(self, reason: str) -> None:
        self._register.check_started()
        await self._register.learning.pause(reason)

    async def crown(self, version: int, over: int, ledger: GateLedger) -> None:
        register, lineage = self._register, self._register.lineage
        register.check_started()
        stands = lineage.champion.version == over and version not in lineage.withdrawn
        if not stands or lineage.states.get(version) != "promoted":
            return await register.keep([register.account(ledger)])
        lineage.crown(version)
        standing = lineage.decisions[version].standing
        await register.keep([register.account(ledger), register.event("crowned", version=version, standing=standing)])

    async def call_back(self, version: int, reason: str) -> None:
        register, lineage = self._register, self._register.lineage
        register.check_started()
        waiting = lineage.waiting
        if waiting is not None and waiting.version == version:  # it waits for a hold to end and answers no users yet
            return await register.roll_back(version, reason, by="the watch")
        if lineage.serve.version != version:
            return
        if lineage.held is not None:
            lineage.due = DueRollback(version=version, why=reason)
            say = f"v{version} is served and {reason}, but serving is held; `ratchet rollback v{version}` works now"
            return await register.keep([register.event("alert", reason=say)])
        await register.roll_back(version, reason, by="the watch")

    async def reported(self, version: int) -> None:
        self._register.check_started()
        self._register.lineage.reported(version)
        await self._register.keep()

    async def status(self) -> VersionsStatus:
        return versions_status(self._register, self._replicas)
