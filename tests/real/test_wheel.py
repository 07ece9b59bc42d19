"""The wheel without the repository: it has every module, and `ratchet up` works in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.real.conftest import ROOT

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
PACKAGES = ("core", "methods", "training", "serve", "actors")
SHIPPED = ("configs/*.yaml", "models/*/manifest.json", "models/*/*.parquet", "models/*/model/*")
NOT_SHIPPED = "configs/cluster/*"
SCRIPTS = {"actors.cli.__main__"}
"""Modules that run the command line on import."""
IMPORT_ALL = """
import importlib, json, sys
for name in json.load(sys.stdin):
    importlib.import_module(name)
ours = {name: m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] in sys.argv[1:]}
print(json.dumps(ours))
"""


def in_git() -> list[str]:
    """Files of the repository, including uncommitted ones."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [name for name in listed if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


def expected() -> set[str]:
    """The files that the wheel must have, apart from its own metadata."""
    files = in_git()
    own = {name for name in files if name.startswith(tuple(f"{p}/" for p in PACKAGES)) and not (ROOT / name).is_dir()}
    shipped = [n for n in files if any(fnmatch(n, p) for p in SHIPPED) and not fnmatch(n, NOT_SHIPPED)]
    return own | {f"core/shipped/{name}" for name in shipped}


def execute(command: list[str | Path], cwd: Path, timeout_s: float = 120, input: str = "") -> str:
    """The output of the command. Its environment does not point to the repository."""
    done = tried(command, cwd, timeout_s, input)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def tried(
    command: list[str | Path], cwd: Path, timeout_s: float = 120, input: str = ""
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=cwd, env=env, input=input, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, because setuptools would also pack files of an older build/."""
    copy, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in in_git():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(to)]
    execute([sys.executable, "-m", "pip", "wheel", *options, str(copy)], to)
    (built,) = to.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel. It uses the dependencies of the current environment through a plain path. Python
    reads no .pth files there, so the repository's editable installation is not visible."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--no-compile"]
    execute([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_every_module_and_file_that_the_repository_has(wheel: Path) -> None:
    held = {entry.filename: entry.external_attr >> 16 for entry in zipfile.ZipFile(wheel).infolist()}
    assert {name for name in held if ".dist-info/" not in name} == expected()
    assert held["serve/replica/haproxy.sh"] & 0o111, "haproxy.sh must be executable for Ray"


def test_every_module_imports_from_the_wheel_alone(wheel: Path, installed: Path, tmp_path: Path) -> None:
    files = [Path(name) for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    names = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files} - SCRIPTS
    command = [installed / "bin" / "python", "-c", IMPORT_ALL, *PACKAGES]
    loaded = json.loads(execute(command, tmp_path, input=json.dumps(sorted(names))).splitlines()[-1])
    assert loaded.keys() >= names
    assert not {name: file for name, file in loaded.items() if not Path(file).is_relative_to(installed)}


def test_up_serves_and_improves_the_embedded_model_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    command = [installed / "bin" / "ratchet", "up", "--versions", "1", "--port", "0", "report.final=600"]
    told = execute(command, tmp_path, 800)
    assert "serving on http://127.0.0.1:" in told and "questions, " in told
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    run = tmp_path / "runs" / "latest"
    report = json.loads((run / "report.json").read_text())
    assert report["accuracy_end"] > report["accuracy_start"]
    assert f"path: {installed}/" in (run / "config.yaml").read_text()


def test_a_cluster_file_is_made_in_a_checkout_only(installed: Path, tmp_path: Path) -> None:
    done = tried([installed / "bin" / "ratchet", "cluster-file"], tmp_path)
    assert done.returncode == 1 and "no cluster.yaml in this folder" in done.stdout and "checkout" in done.stdout
