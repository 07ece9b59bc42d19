"""Who asks for which GPUs, and what Serve and vLLM would be told: a dry run, for no GPU is there."""

import pytest

from actors.runtime.gpu_shares import shares
from core.config import Config, EngineConfig, load
from core.errors import ConfigError
from serve.engine import tensor_parallel


def of(*overrides: str) -> Config:
    return load(None, overrides)


@pytest.mark.parametrize(
    ("overrides", "there", "expected"),
    [
        ([], 0, (0, 0)),
        ([], 1, (0.7, 0.3)),
        ([], 2, (1, 1)),
        (["model.weights.kind=full"], 2, (0.7, 0.3)),
        (["model.weights.kind=full"], 3, (1, 1)),
        (["learning.devices=4"], 0, (0, 0)),
        (["learning.devices=4"], 5, (1, 1)),
        (["serve.engine.tensor_parallel=2", "serve.replicas=2"], 5, (2, 1)),
    ],
)
def test_engines_and_trainer_take_whole_gpus_where_there_are_enough(overrides, there, expected):
    assert shares(of(*overrides), there) == expected


@pytest.mark.parametrize("setting", ["learning.devices=2", "serve.engine.tensor_parallel=2"])
def test_what_needs_several_gpus_is_refused_with_too_few(setting):
    with pytest.raises(ConfigError, match=r"need 3 GPUs, the cluster has 2; add GPUs, or lower"):
        shares(of(setting), 2)


def test_an_engine_of_four_gpus_asks_for_a_placement_group_of_one_node():
    four = EngineConfig(tensor_parallel=4)
    assert tensor_parallel.placement(four) == {
        "placement_group_bundles": [{"CPU": 0.1, "GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}],
        "placement_group_strategy": "STRICT_PACK",
    }
    assert tensor_parallel.actor(four, 4) == {"num_cpus": 0.1, "num_gpus": 0}
    assert tensor_parallel.vllm(four) == {"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}


def test_an_engine_of_one_gpu_asks_for_none():
    one = EngineConfig()
    assert tensor_parallel.placement(one) == {}
    assert tensor_parallel.actor(one, 0.7) == {"num_cpus": 0.1, "num_gpus": 0.7}
    assert tensor_parallel.vllm(one) == {"tensor_parallel_size": 1}


def test_serve_accepts_what_such_a_replica_asks_for():
    from ray import serve

    class Replica: ...

    engine = EngineConfig(tensor_parallel=2)
    asked = serve.deployment(
        Replica, ray_actor_options=tensor_parallel.actor(engine, 2), **tensor_parallel.placement(engine)
    )
    config = asked._replica_config
    assert config.placement_group_bundles == [{"CPU": 0.1, "GPU": 1.0}, {"GPU": 1.0}]
    assert config.placement_group_strategy == "STRICT_PACK"
