"""Where each part of a run may live. What reads or writes the run directory stays with the process that was started."""

from collections.abc import Callable

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.config import ClusterConfig


def placement(part: str, cluster: ClusterConfig, home: Callable[[], str]) -> dict[str, object]:
    """Options of the actor; `home` says the node of the run directory."""
    if part == "trainer":
        return _one_of(cluster.training)
    if part.startswith("collector"):
        return _one_of(cluster.collecting)
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(home(), soft=False)}


def _one_of(resource: str | None) -> dict[str, object]:
    return {"resources": {resource: 1}} if resource is not None else {}
