"""Settings of Ray Serve and of vLLM for an engine on several GPUs.

Untested: no machine with more than one GPU was available. It follows Ray's own `ray.llm` (Ray 2.60): the replica's
actor holds no GPU and runs in a placement group with one bundle per GPU. vLLM's Ray executor puts one worker into each
bundle; it accepts no bundle with more than one GPU, and finds the group through the actor that starts it. All GPUs of
an engine are on one node, because every layer waits for all of them.
"""

from typing import Any

from core.config import EngineConfig

REPLICA_CPUS = 0.1


def actor(engine: EngineConfig, gpus: float) -> dict[str, Any]:
    """Ray resources of the replica's own process. `gpus`: the GPUs of a whole engine."""
    return {"num_cpus": REPLICA_CPUS, "num_gpus": gpus if engine.tensor_parallel == 1 else 0}


def placement(engine: EngineConfig) -> dict[str, Any]:
    """Placement arguments of the Serve deployment. The replica's process and the first worker share a bundle."""
    if engine.tensor_parallel == 1:
        return {}
    others = [{"GPU": 1.0} for _ in range(engine.tensor_parallel - 1)]
    return {
        "placement_group_bundles": [{"CPU": REPLICA_CPUS, "GPU": 1.0}, *others],
        "placement_group_strategy": "STRICT_PACK",
    }


def vllm(engine: EngineConfig) -> dict[str, Any]:
    """Arguments of vLLM on GPUs."""
    if engine.tensor_parallel == 1:
        return {"tensor_parallel_size": 1}
    return {"tensor_parallel_size": engine.tensor_parallel, "distributed_executor_backend": "ray"}
