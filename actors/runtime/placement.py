"""Which node each actor runs on. Actors that read or write the run directory stay on the driver's node."""

from collections.abc import Callable

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.config import ClusterConfig


def placement(part: str, cluster: ClusterConfig, home: Callable[[], str]) -> dict[str, object]:
    """Ray options for the actor; `home` returns the id of the run directory's node."""
    if part == "trainer":
        return _one_of(cluster.training)
    if part.startswith("collector"):
        return _one_of(cluster.collecting)
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(home(), soft=False)}


def _one_of(resource: str | None) -> dict[str, object]:
    return {"resources": {resource: 1}} if resource is not None else {}
