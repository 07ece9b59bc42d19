import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from actors.cli.cluster_file import laid_over, merged
from core import config as configuration
from core.errors import ConfigError

ROOT = Path(__file__).parents[4]
DIFFERENCES = {path.stem: path for path in (ROOT / "configs/cluster").glob("*.yaml") if path.stem != "ratchet"}


def cluster(*differences: str) -> dict[str, Any]:
    return merged(ROOT / "cluster.yaml", [DIFFERENCES[name] for name in differences])


@pytest.mark.parametrize("difference", [None, *DIFFERENCES])
def test_rays_own_validation_accepts_the_cluster_file_and_each_difference(difference: str | None) -> None:
    prepared = prepare_config(cluster(difference) if difference else cluster())
    validate_config(prepared)
    assert not [
        command for command in commands(prepared) if "None" in command or "null" in command.replace("/dev/null", "")
    ]


def test_gcp_and_own_machines_are_among_the_differences() -> None:
    assert {"gcp", "own-machines"} <= set(DIFFERENCES)


def test_what_is_mounted_is_there_and_is_all_that_the_code_imports() -> None:
    mounts = cluster()["file_mounts"]
    here = {source for source in mounts.values() if source not in ("keys.txt", "~/.ray/auth_token")}
    assert all((ROOT / source).exists() for source in here)
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} or {
        "core",
        "methods",
        "training",
        "serve",
        "actors",
    }
    assert rooms - {"bench", "tests"} <= here


@pytest.mark.parametrize("difference", [None, *DIFFERENCES])
def test_every_node_that_is_asked_for_is_declared_by_some_node_type(difference: str | None) -> None:
    config = configuration.load(ROOT / "configs/cluster/ratchet.yaml").cluster
    asked = {name for name in (config.serving, config.training, config.collecting) if name is not None}
    tree = cluster(difference) if difference else cluster()
    types = tree.get("available_node_types")
    if tree["provider"]["type"] == "local":  # machines of one's own say it themselves, each in a file
        assert all("places.json" in command for command in commands(tree) if "ray start" in command)
        return
    assert asked <= {name for kind in types.values() for name in kind["resources"]}


@pytest.mark.parametrize("difference", [None, *DIFFERENCES])
def test_the_token_travels_and_every_node_has_a_port_for_metrics_and_haproxys_settings(difference: str | None) -> None:
    tree = cluster(difference) if difference else cluster()
    assert tree["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [command for command in commands(tree) if "ray start" in command]
    assert len(starts) == 2 and all("--metrics-export-port=8080" in command for command in starts)
    assert all('eval "$(python -m serve.replica.haproxy)" &&' in command for command in starts)
    assert "RAY_AUTH_MODE=token" in (ROOT / "configs/cluster/environment.sh").read_text()


def test_machines_of_ones_own_avoid_what_was_measured_to_fail() -> None:
    head, worker = (c for c in commands(cluster("own-machines")) if "ray start" in c)
    assert "RAY_enable_autoscaler_v2=0" in head
    assert "--node-ip-address=$3" in head and "--node-ip-address=$3" in worker


def test_a_difference_replaces_values_merges_mappings_and_takes_away_what_is_null() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    over = {"a": {"c": [3], "g": {"h": 1, "i": None}}, "d": None, "e": 2}
    assert laid_over(tree, over) == {"a": {"b": 1, "c": [3], "g": {"h": 1}}, "e": 2}
    assert json.dumps(tree) == '{"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}'


def test_a_difference_that_is_no_mapping_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match=r"x\.yaml holds list"):
        merged(ROOT / "cluster.yaml", [tmp_path / "x.yaml"])
    (tmp_path / "y.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"y\.yaml cannot be read as YAML"):
        merged(ROOT / "cluster.yaml", [tmp_path / "y.yaml"])


def commands(tree: dict[str, Any]) -> list[str]:
    return [
        command
        for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
        for command in yaml.safe_load(yaml.safe_dump(tree.get(key, [])))
    ]
