"""Directories that appear whole: written aside, synced, digested, renamed; a manifest is the marker, written last."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from core.errors import ArtifactError

MANIFEST = "manifest.json"


@contextmanager
def appearing(path: Path, manifest: dict[str, Any]) -> Generator[Path]:
    """A directory to fill; on leaving without an error it stands at `path`, synced, with what `manifest` holds by then
    and the digest of every file. Raises: ArtifactError when `path` exists."""
    if path.exists():
        raise ArtifactError(f"{path} exists already; a version or checkpoint is never written twice")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        yield aside
        if (aside / MANIFEST).exists():
            raise ArtifactError(f"{path} was filled with a {MANIFEST} of its own; that name is the marker's")
        files = {str(f.relative_to(aside)): digest_file(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        (aside / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1))
        for file in aside.rglob("*"):
            sync(file)
        sync(aside)
        os.rename(aside, path)
        sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises: ArtifactError naming the file, when it is missing or damaged."""
    file = path / MANIFEST
    try:
        manifest: Any = json.loads(file.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} has no {MANIFEST}: it is no finished artifact; remove it or restore it") from None
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); restore it or remove {path}") from None
    if not isinstance(manifest, dict) or not isinstance(cast(dict[str, Any], manifest).get("files"), dict):
        raise ArtifactError(f"{file} lists no files; restore it or remove {path}")
    return cast(dict[str, Any], manifest)


def verify(path: Path) -> dict[str, Any]:
    """The manifest, after every file was found to have the digest in it. Raises: ArtifactError naming the file."""
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        actual = digest_file(file) if file.is_file() else "missing"
        if actual != expected:
            raise ArtifactError(
                f"{file} has digest {actual}, its manifest says {expected}; restore it or remove {path}"
            )
    return manifest


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
