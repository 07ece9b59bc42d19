"""Where each part of a run may live. What reads or writes the run directory stays with the process that was started."""

from collections.abc import Callable
from typing import Any

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.config import ClusterConfig


def placement(part: str, cluster: ClusterConfig, home: Callable[[], str]) -> dict[str, Any]:
    """Options of the actor; `home` says the node of the run directory."""
    if part == "trainer":
        return _one_of(cluster.training)
    if part.startswith("collector"):
        return _one_of(cluster.collecting)
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(home(), soft=False)}


def gpus(cluster: ClusterConfig, tensor_parallel: int, replicas: int, there: float) -> tuple[float, float]:
    """What each engine and the trainer ask of Ray: whole GPUs where there are enough, parts of the only one
    otherwise (the engine takes no more of its memory than `gpu_memory_ratio`)."""
    if there == 0:
        found = 0.0, 0.0
    elif there > tensor_parallel * replicas:
        found = float(tensor_parallel), 1.0
    else:
        found = 0.7, 0.3
    engine, trainer = cluster.replica_gpus, cluster.trainer_gpus
    return found[0] if engine is None else engine, found[1] if trainer is None else trainer


def _one_of(resource: str | None) -> dict[str, Any]:
    return {"resources": {resource: 1}} if resource is not None else {}
