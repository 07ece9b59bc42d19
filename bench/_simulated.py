"""The whole system with simulated engines and training. Store, buffer, collectors, trainer, gate and versions are real;
replicas return texts of 1 kB after a fixed time, and the training session only writes files."""

import random
from pathlib import Path
from typing import Any

import ray
from ray import serve as rayserve

from actors.in_process import ScriptedSession
from actors.system import RaySystem
from bench._simulated_replica import Plain, SimulatedReplica
from core.artifacts import appearing
from core.config import Config
from core.messages import BASE, PolicyRef, Published, Window
from serve.replica.app import PolicyHandles

WEIGHTS_BYTES = 2**20
"""Size of a version's folder."""


class SimulatedSession(ScriptedSession):
    """Writes a folder of an adapter's size for each version. It does not train."""

    def open(self) -> Published:
        return self._write(BASE, BASE, 0, {})

    def make(self, window: Window, ref: PolicyRef, parent: Published, rest: Any, lr_scale: float = 1.0) -> Published:
        rest(1, 1)
        return self._write(ref, parent.ref, window.number, {"examples": float(len(window.examples))})

    def _write(self, ref: PolicyRef, parent: PolicyRef, window: int, stats: dict[str, float]) -> Published:
        path = self.run_dir / "versions" / f"v{ref.version:04d}"
        if not path.exists():
            with appearing(path, {"ref": str(ref)}) as aside:
                (aside / "weights.bin").write_bytes(random.Random(ref.version).randbytes(WEIGHTS_BYTES))
        about = {"parent": parent, "window": window, "fingerprint": str(ref), "stats": stats}
        return Published(ref=ref, path=str(path), **about)


class SimulatedSystem(RaySystem):
    """Has `serve.replicas` simulated replicas, as plain actors or behind Ray Serve."""

    def __init__(self, config: Config, run_dir: Path, latency_s: float, by_serve: bool = False) -> None:
        super().__init__(config, run_dir)
        self._latency_s = latency_s
        self._by_serve = by_serve
        self.replicas: list[Any] = []

    def connect(self) -> None:
        """Does nothing: the benchmark has started Ray."""

    def open_gateway(self) -> None: ...

    def serve(self) -> None:
        seats = self.config.serve.engine.max_seqs // self.config.method.sampler.n
        if self._by_serve:
            handle = rayserve.run(
                rayserve.deployment(
                    _ServedReplica,
                    name="simulated",
                    num_replicas=self.config.serve.replicas,
                    max_ongoing_requests=10_000,
                    ray_actor_options={"num_cpus": 0},
                ).bind(self.namespace, seats, self._latency_s),
                name="simulated",
                route_prefix=None,
            )
        else:
            kind = ray.remote(SimulatedReplica)
            names = [f"simulated-{index}" for index in range(self.config.serve.replicas)]
            made = [kind.options(num_cpus=0).remote(name, self.namespace, seats, self._latency_s) for name in names]
            ray.get([replica.start.remote() for replica in made])
            self.replicas, handle = made, Plain(made)
        self._service = PolicyHandles(users=handle, learning=handle)  # type: ignore[arg-type]

    def disconnect(self) -> None:
        for handle in (*self.parts.values(), *self.replicas):
            ray.kill(handle)
        if self._by_serve:
            rayserve.delete("simulated")

    def _session(self) -> Any:
        return SimulatedSession(self.run_dir)


class _ServedReplica(SimulatedReplica):
    def __init__(self, namespace: str, seats: int, latency_s: float) -> None:
        super().__init__(rayserve.get_replica_context().replica_tag, namespace, seats, latency_s)

    async def check_health(self) -> None:
        if self._following is None:
            await self.start()
