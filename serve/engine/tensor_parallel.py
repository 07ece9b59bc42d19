"""An engine over several GPUs: what its replica asks of Ray Serve, and what vLLM is told.

Untested: no machine with more than one GPU was at hand. It follows Ray's own `ray.llm` (Ray 2.60): the replica's actor
holds no GPU but lives in a placement group with one bundle a GPU, into which vLLM's Ray executor puts one worker each
(it takes no bundle of more than one, and finds the group by the actor it is started in). All of an engine is on one
node, because every layer waits for all of its GPUs.
"""

from typing import Any

from core.config import EngineConfig

REPLICA_CPUS = 0.1


def actor(engine: EngineConfig, gpus: float) -> dict[str, Any]:
    """Resources of the replica's own process; `gpus` is what a whole engine takes."""
    return {"num_cpus": REPLICA_CPUS, "num_gpus": gpus if engine.tensor_parallel == 1 else 0}


def placement(engine: EngineConfig) -> dict[str, Any]:
    """Arguments of a Serve deployment. The replica's process is in the first bundle, beside the first worker."""
    if engine.tensor_parallel == 1:
        return {}
    others = [{"GPU": 1.0} for _ in range(engine.tensor_parallel - 1)]
    return {
        "placement_group_bundles": [{"CPU": REPLICA_CPUS, "GPU": 1.0}, *others],
        "placement_group_strategy": "STRICT_PACK",
    }


def vllm(engine: EngineConfig) -> dict[str, Any]:
    """Arguments of vLLM, on GPUs."""
    if engine.tensor_parallel == 1:
        return {"tensor_parallel_size": 1}
    return {"tensor_parallel_size": engine.tensor_parallel, "distributed_executor_backend": "ray"}
