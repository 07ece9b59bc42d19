"""Which node a part may live on, and what it asks of one."""

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cli.preflight import Memory, here
from actors.runtime.gpu_shares import shares
from actors.runtime.placement import placement
from core import config as configuration
from core.config import ClusterConfig, Config
from core.errors import ConfigError
from serve.replica.app import _count

SPREAD = ClusterConfig(serving="serving", training="training", collecting="collecting")


@pytest.mark.parametrize("part", ["store", "versions", "buffer", "desk", "console", "evaluator"])
@pytest.mark.parametrize("cluster", [ClusterConfig(), SPREAD])
def test_what_reads_or_writes_the_run_directory_stays_with_the_driver(part: str, cluster: ClusterConfig) -> None:
    (strategy,) = placement(part, cluster, lambda: "ab" * 28).values()
    assert isinstance(strategy, NodeAffinitySchedulingStrategy)
    assert (strategy.node_id, strategy.soft) == ("ab" * 28, False)


def test_trainer_and_collectors_take_a_place_where_the_config_names_one_and_go_anywhere_else() -> None:
    assert placement("trainer", SPREAD, str) == {"resources": {"training": 1}}
    assert placement("collector-3", SPREAD, str) == {"resources": {"collecting": 1}}
    assert placement("trainer", ClusterConfig(), str) == placement("collector-0", ClusterConfig(), str) == {}


def test_gpus_are_what_is_there_unless_the_config_says_which() -> None:
    def asked(there: float, *settings: str) -> tuple[float, float]:
        return shares(configuration.load(None, list(settings)), there)

    assert asked(0) == (0, 0)
    assert asked(3, "serve.replicas=2") == (1, 1)
    assert asked(1) == (0.7, 0.3)
    assert asked(0, "cluster.replica_gpus=1", "cluster.trainer_gpus=1") == (1, 1)
    assert asked(1, "cluster.replica_gpus=0") == (0, 0.3)


def test_memory_is_asked_of_this_machine_only_for_what_lives_on_it() -> None:
    need = Memory(engines=1, kv_caches=2, trainer=4, ray=8)
    assert here(Config(), need).total == 15
    assert here(Config(cluster=ClusterConfig(serving="s")), need).total == 12
    assert here(Config(cluster=SPREAD), need).total == 8


def test_replicas_scale_by_requests_under_way_only_where_a_most_is_named() -> None:
    fixed, scaled = configuration.load(None).serve, configuration.load(None, ["serve.max_replicas=4"]).serve
    assert _count(fixed, 2, fixed=False) == _count(scaled, 2, fixed=True) == {"num_replicas": 2}
    told = _count(scaled, 2, fixed=False)["autoscaling_config"]
    assert (told["min_replicas"], told["max_replicas"], told["target_ongoing_requests"]) == (2, 4, 32)


def test_a_most_below_the_number_at_the_start_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\.max_replicas=1 is "):
        configuration.load(None, ["serve.max_replicas=1", "serve.replicas=2"])
