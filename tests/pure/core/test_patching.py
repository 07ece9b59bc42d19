"""Patches of Ray and vLLM: supported versions, the switch, and the table that lists all of them."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.patching import NAMES, SWITCH, Patch
from serve.engine.patches import VLLM, vllm_patch
from serve.replica.haproxy import RAY

ROOT = Path(__file__).parents[3]
SOURCES = [*(ROOT / "serve").rglob("*.py"), *(ROOT / "actors").rglob("*.py")]
MAY_NAME_RAYS_PRIVATE_PARTS = {
    "actors/preloaded.py",
    "actors/runtime/forked_worker.py",
    "actors/runtime/local_cluster.py",
    "actors/cli/service.py",
    "actors/cli/forget_cluster.py",
}


def patch(supported: str) -> Patch:
    return Patch("amx", ("no-such-package", "pytest"), supported, without="it is slower")


def test_a_patch_applies_to_the_version_it_is_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert patch(f"{version('pytest')}.").on() and patch(version("pytest").split(".")[0] + ".").on()


def test_an_unknown_version_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    remedy = rf"made for 0\.31\.\*: install that, or set {SWITCH}=amx to run without it \(it is slower\)"
    with pytest.raises(ConfigError, match=f"pytest {re.escape(version('pytest'))} is installed.*{remedy}"):
        patch("0.31.").on()
    monkeypatch.setenv(SWITCH, "haproxy, amx")
    assert not patch("0.31.").on()


def test_a_name_that_no_patch_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "amx,amy")
    with pytest.raises(ConfigError, match=f"{SWITCH} names amy; there are amx, cpu_lora"):
        patch("0.31.").on()


def test_none_of_the_packages_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with pytest.raises(ConfigError, match="none of no-such-package is installed"):
        Patch("amx", ("no-such-package",), "1.", without="").on()


def test_the_versions_that_we_pin_are_those_that_the_patches_are_made_for() -> None:
    """Before a pin is raised, check each row of the table in docs/architecture.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = dict(line.split("==") for line in [*extras["cpu"], *extras["gpu"]])
    assert pins.keys() == set(VLLM)
    assert all(pin.startswith(vllm_patch("amx", without="").supported) for pin in pins.values())
    (ray,) = (line.split("==")[1] for line in project["dependencies"] if line.startswith("ray["))
    assert ray.startswith(RAY[1])


def test_every_patch_is_known_by_name_and_in_the_table() -> None:
    made = {name for file in SOURCES for name in re.findall(r'[pP]atch\("(\w+)"', file.read_text())}
    assert made == set(NAMES)
    table = (ROOT / "docs/architecture.md").read_text().partition("## Patches of other people's code")[2]
    assert not [name for name in NAMES if f"`{name}`" not in table]


def private_imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names]
            yield from (name for name in names if re.match(r"\.?(ray|vllm)\b.*\._", name))


def test_private_parts_of_ray_and_vllm_are_imported_where_the_table_says() -> None:
    found = {str(file.relative_to(ROOT)) for file in SOURCES if [*private_imports(file.read_text())]}
    assert found <= MAY_NAME_RAYS_PRIVATE_PARTS and "actors/runtime/local_cluster.py" in found
