"""The actor that decides which version is served. It never calls a replica: it publishes the desired state, and
replicas pull it, prove it, and report. `actors.versions.lineage` holds the rules. The actor adds one port per caller:

    replicas    VersionsForReplicas     desired state, reports
    trainer     VersionsForTrainer      parents, proposals
    gate        VersionsForGate         candidates, verdicts
    people      VersionsForPeople       promote, roll back, hold by hand
    files       VersionFiles            files for other nodes
"""

from pathlib import Path

from actors.runtime.ports import LearningPort, Part, StorePort, WindowPort
from actors.versions.for_gate import VersionsForGate
from actors.versions.for_people import VersionsForPeople
from actors.versions.for_replicas import VersionsForReplicas
from actors.versions.for_trainer import VersionsForTrainer
from actors.versions.pruning import Pruning
from actors.versions.register import Register
from actors.versions.replicas import Replicas
from core.clock import Clock, SystemClock
from core.config import BackoffConfig
from core.metrics import Metrics
from serve.weights.transfer import VersionFiles, WeightsTransfer


class Versions(Part):
    def __init__(
        self,
        run_dir: str,
        store: StorePort,
        windows: WindowPort,
        learning: LearningPort,
        metrics: Metrics,
        plateau: int | None = None,
        clock: Clock | None = None,
        backoff: BackoffConfig | None = None,
        ends: bool = False,
        keep: int | None = None,
        transfer: WeightsTransfer | None = None,
    ) -> None:
        """`ends`: the run stops by itself after `run.versions` candidates, so rejections never pause learning. `keep`:
        run.retention.versions. `transfer`: copies versions from the trainer's node."""
        clock = clock or SystemClock()
        register = Register(Path(run_dir), store, windows, learning, metrics, clock, backoff or BackoffConfig(), ends)
        self.register = register
        self._reports = Replicas(clock)
        self._pruning = Pruning(register.run_dir / "versions", register.lineage, keep)
        self.files = VersionFiles()
        self.replicas = VersionsForReplicas(register, self._reports)
        self.trainer = VersionsForTrainer(register, self._pruning, transfer)
        self.gate = VersionsForGate(register, self._reports, plateau)
        self.people = VersionsForPeople(register, self._reports, self._pruning)

    async def start(self) -> None:
        """Load the state from the run directory, if there is one. The base comes from the trainer, see
        `TrainerPort.found`."""
        await self.register.restore()
        self.register.metrics.begin("versions_published_total", "verdicts_total", "rollbacks_total")
        self._reports.listen()

    async def run(self) -> None:
        """Tell the buffer again about decisions before a restart; then prune after every change of the lineage."""
        await self.register.tell_again()
        register = self.register
        while True:
            seen = register.lineage.epoch
            gone = await self._pruning.prune()
            if gone:
                await register.append([register.event("pruned", versions=gone)])
            async with register.changed:
                await register.changed.wait_for(lambda seen=seen: register.lineage.epoch != seen)

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """0: the answer itself shows that the event loop runs."""
        return 0.0
