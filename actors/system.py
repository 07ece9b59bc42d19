"""The composition root: creates all actors of a run and connects them. No other module knows all of them."""

import logging
import math
import os
import time
from pathlib import Path
from typing import Any, TypeVar

import ray

from actors.collect.collector import Collector
from actors.evaluate.evaluator import Evaluator
from actors.people.admin import Admin, Ports
from actors.people.feedback import FeedbackDesk
from actors.replay.buffer import Buffer
from actors.runtime import gpu_shares, local_cluster
from actors.runtime.niceness import hosted
from actors.runtime.placement import placement
from actors.runtime.ports import (
    BallotPort,
    FeedbackPort,
    GatePort,
    HasStatus,
    LearningPort,
    LeasePort,
    MeasurePort,
    ServingPort,
    StorePort,
    TrainerPort,
    WindowPort,
)
from actors.runtime.rpc import remote
from actors.storage.store import Store
from actors.train.group import TrainGroup
from actors.train.remote_node import RemoteNode
from actors.train.trainer import Trainer
from actors.versions.versions import Versions
from core.config import Config
from core.errors import RatchetError
from core.metrics import Metrics
from core.store.records import as_row, event
from methods import recipes
from methods.data import prompts
from methods.data.samples import examples
from methods.modes import modes
from serve.http.keys import Keys
from serve.replica.app import PolicyHandles, deploy, open_gateway, undeploy
from serve.replica.client import ServedPolicy
from serve.replica.telemetry import RaySink
from serve.weights.transfer import FilesPort, WeightsTransfer
from training.session import TrainingSession

PROOF_PROMPTS = 24
EXCUSE_S = 5.0
MEASURE_S = 900.0
"""Thousands of report questions take minutes while learning runs."""
P = TypeVar("P")


class RaySystem:
    """The parts of a run as named Ray actors. The supervisor starts, watches and stops them."""

    def __init__(self, config: Config, run_dir: Path, address: str | None = None, keys: Keys | None = None) -> None:
        self.config = config
        self.run_dir = run_dir
        self.namespace = f"ratchet-{run_dir.name}"
        self.parts: dict[str, Any] = {}
        self._address = address
        self._keys = keys or Keys()
        self._service: PolicyHandles | None = None
        self._service_away_at = -math.inf

    def connect(self) -> None:
        """Join the cluster at `address`, or start one that ends with this process."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        common = {"namespace": self.namespace, "log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is not None:
            ray.init(address=self._address, **common)
        else:
            local_cluster.start(**common)
        self._link_logs()

    def port(self, kind: type[P], name: str, part: str = "", deadline_s: float | None = None) -> P:
        """A port of the actor `name`. The default deadline is long enough for the supervisor to notice a hang and
        restart the actor."""
        return remote(kind, name, self.namespace, deadline_s or 3 * self.config.run.hang_s, part)

    def kill(self, name: str) -> None:
        ray.kill(self.parts[name], no_restart=False)

    async def excused(self, name: str) -> bool:
        """Whether evaluator or collector wait for the policy service, which is away or came back within `hang_s`."""
        if name != "evaluator" and not name.startswith("collector"):
            return False
        now = time.monotonic()
        try:
            replicas = (await self.port(ServingPort, "versions", "people", EXCUSE_S).status())["replicas"]
        except RatchetError:
            return True
        if not replicas:
            self._service_away_at = now
        return now - self._service_away_at < self.config.run.hang_s

    async def note(self, kind: str, **detail: object) -> None:
        await self.port(StorePort, "store").append([as_row(event(time.time(), "supervisor", kind, **detail))])

    def make_core(self) -> None:
        """Create the actors that the first answer needs besides the policy service: store and versions."""
        config, run_dir = self.config, str(self.run_dir)
        plateau = config.learning.plateau
        patience = plateau.versions if plateau is not None and config.run.versions is None else None
        self._host("store", Store, run_dir, config.run, config.learning, metrics=_metrics())
        self._host(
            "versions",
            Versions,
            run_dir,
            self.port(StorePort, "store"),
            self.port(WindowPort, "buffer", "windows"),
            self.port(LearningPort, "buffer", "learning"),
            _metrics(),
            plateau=patience,
            backoff=config.learning.backoff,
            ends=config.run.versions is not None,
            keep=config.run.retention.versions,
            transfer=WeightsTransfer(self.port(FilesPort, "trainer", "files"), self.namespace),
        )

    def open_gateway(self) -> None:
        open_gateway(self.config)

    def serve(self) -> None:
        """Start the policy service; returns when every replica has proven the version that it serves."""
        self._service = deploy(
            self.config,
            self.namespace,
            self._gpus()[0],
            modes(self.config.method, self.config.serve.modes.off),
            self._keys,
        )

    def make_learners(self) -> None:
        """Create the actors that the first answer does not need: those that learn, feedback and admin."""
        assert self._service is not None, "serve() comes first"
        config, policy, run_dir = self.config, ServedPolicy(self._service.learning), str(self.run_dir)
        store, ballot = self.port(StorePort, "store"), self.port(BallotPort, "buffer", "people")
        windows, learning = self.port(WindowPort, "buffer", "windows"), self.port(LearningPort, "buffer", "learning")
        trainer, leases = self.port(TrainerPort, "versions", "trainer"), self.port(LeasePort, "buffer", "collectors")
        method, wanted = config.method, config.run.versions
        self._host("buffer", Buffer, run_dir, store, config.learning, wanted, _metrics(), method.votes, None, method)
        self._host("feedback", FeedbackDesk, run_dir, store, ballot, config, _metrics())
        transfer = WeightsTransfer(self.port(FilesPort, "versions", "files"), self.namespace)
        self._host(
            "trainer",
            Trainer,
            self._session(),
            store,
            windows,
            learning,
            trainer,
            config.run.cpu_share,
            _metrics(),
            remote_node=RemoteNode(trainer, transfer, keep=config.learning.max_lag + 2),
            load_timeout_s=config.run.start_timeout_s,
        )
        for index in range(config.collect.collectors):
            self._host(f"collector-{index}", Collector, leases, config, policy)
        shown = examples(config)
        self._host("admin", Admin, self._admin_ports(), config.report.final, run_dir, examples=shown)
        gate = self.port(GatePort, "versions", "gate")
        self._host("evaluator", Evaluator, run_dir, store, gate, config, policy, _metrics())

    def _admin_ports(self) -> Ports:
        return Ports(
            store=self.port(StorePort, "store"),
            versions=self.port(ServingPort, "versions", "people"),
            ballot=self.port(BallotPort, "buffer", "people"),
            learning=self.port(LearningPort, "buffer", "learning"),
            feedback=self.port(FeedbackPort, "feedback"),
            trainer=self.port(HasStatus, "trainer"),
            evaluator=self.port(MeasurePort, "evaluator", deadline_s=MEASURE_S),
        )

    def disconnect(self) -> None:
        """Stop everything that this run has started."""
        if ray.is_initialized():
            undeploy()
            for handle in self.parts.values():
                ray.kill(handle)
            ray.shutdown()

    def _link_logs(self) -> None:
        """Link logs/ray to the output of all actors and engines on this node."""
        link = self.run_dir / "logs" / "ray"
        link.unlink(missing_ok=True)
        link.symlink_to(local_cluster.logs_dir())

    def _host(self, name: str, kind: type, *arguments: object, **settings: object) -> None:
        heavy = name == "trainer"
        learns = heavy or name == "evaluator" or name.startswith("collector")
        self.parts[name] = (
            ray.remote(hosted(kind, gives_way=learns))
            .options(
                name=name,
                namespace=self.namespace,
                max_restarts=-1,
                num_cpus=0.1 if heavy else 0.02,
                num_gpus=self._gpus()[1] if heavy and self.config.learning.devices == 1 else 0,
                runtime_env={"env_vars": self._environment()},
                **placement(name, self.config.cluster, lambda: ray.get_runtime_context().get_node_id()),
            )
            .remote(*arguments, **settings)
        )

    def _gpus(self) -> tuple[float, float]:
        """GPUs of each engine, and of each worker of the trainer."""
        return gpu_shares.shares(self.config, ray.cluster_resources().get("GPU", 0))

    def _environment(self) -> dict[str, str]:
        """Environment variables of every process that learns."""
        offline = {"HF_HUB_OFFLINE": "1"} if Path(self.config.model.path).is_dir() else {}
        return {"OMP_NUM_THREADS": str(self.config.learning.threads), **offline}

    def _session(self) -> TrainingSession | TrainGroup:
        config = self.config
        pool = prompts.read(config.prompts, config.run.seed)
        asked = [pool[place] for place in range(min(PROOF_PROMPTS, len(pool)))]
        objective = recipes.build(config.method).objective
        session = TrainingSession(self.run_dir, config.model, config.learning, config.run.seed, objective, asked)
        if config.learning.devices == 1:
            return session
        return TrainGroup(session, self._environment(), gpu=self._gpus()[1] > 0 and config.learning.device != "cpu")


def _metrics() -> Metrics:
    return Metrics([RaySink()])
