"""Directories that appear as a whole: written beside the target, synced, digested, renamed. The manifest is written
last and marks a finished directory."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from core.errors import ArtifactError, StorageFull

MANIFEST = "manifest.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def appearing(path: Path, manifest: dict[str, Any]) -> Generator[Path]:
    """A directory to fill. If the block ends without an error, the directory stands at `path`, synced, with a manifest:
    the entries of `manifest` at that time and the digest of every file.

    Raises: ArtifactError if `path` exists; StorageFull, and then nothing is left."""
    with whole(path) as aside:
        yield aside
        if (aside / MANIFEST).exists():
            raise ArtifactError(
                f"{path} was filled with a {MANIFEST}, but that name is reserved for the marker; use another"
            )
        sync_tree(aside)
        files = {str(f.relative_to(aside)): digest_file(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        (aside / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1))


@contextmanager
def whole(path: Path, synced: bool = True) -> Generator[Path]:
    """`appearing` without a manifest. `synced=False` is for a copy that can be made again: it survives a crash of this
    process, but perhaps not of the machine."""
    if path.exists():
        raise ArtifactError(
            f"{path} exists already; versions and checkpoints are never overwritten: choose another path"
        )
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        make_folder(path.parent)
        aside.mkdir()
        yield aside
        if synced:
            sync_tree(aside)
        os.rename(aside, path)
        if synced:
            sync(path.parent)
    except Exception as error:
        if says_full(error):
            raise StorageFull(f"no room on the disk for {path} ({error}); nothing of it was kept; free some") from None
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def vanish(path: Path) -> None:
    """Remove a directory atomically: a crash leaves all of it or nothing. No error if it does not exist."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Remove unfinished directories that a crash left in `folder`, and return their names. Only for the one writer of
    `folder`, while it writes nothing."""
    left = sorted(child for child in folder.glob(".*.*") if child.is_dir())
    for child in left:
        shutil.rmtree(child, ignore_errors=True)
    return [child.name for child in left]


def make_folder(path: Path) -> None:
    """Create a directory and its missing parents. Syncs every new entry, so that synced files in it survive a crash."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def make_room_for(file: Path) -> None:
    """Make the folder of a file that is to be written. Raises: ArtifactError if there can be no such file."""
    try:
        make_folder(file.parent)
        taken = "it is a folder" if file.is_dir() else None
    except OSError as error:
        taken = error.strerror
    if taken or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ArtifactError(f"{file} cannot be written ({taken or 'no permission'}); choose another place")


def says_full(error: BaseException) -> bool:
    """Whether an error means that the disk, or a quota on it, is full. safetensors has only a text for it, no errno."""
    if isinstance(error, StorageFull) or (isinstance(error, OSError) and error.errno in NO_ROOM):
        return True
    return any(f"os error {number}" in str(error) for number in NO_ROOM)


def read_manifest(path: Path) -> dict[str, Any]:
    """Raises: ArtifactError that names the file, if it is missing or damaged."""
    file = path / MANIFEST
    try:
        manifest: Any = json.loads(file.read_bytes())
    except FileNotFoundError:
        if not path.exists():
            raise ArtifactError(
                f"{path} does not exist: it was never finished, or pruned (run.retention.versions); restore it"
            ) from None
        raise ArtifactError(
            f"{path} has no {MANIFEST}: it is not a finished artifact; remove it or restore it"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); restore it or remove {path}") from None
    files = cast(dict[str, Any], manifest).get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise ArtifactError(f"{file} lists no files; restore it or remove {path}")
    for name in cast(dict[str, Any], files):
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise ArtifactError(f"{file} lists {name!r}, which does not lie in {path}; restore it or remove {path}")
    return cast(dict[str, Any], manifest)


def verify(path: Path) -> dict[str, Any]:
    """Check the digest of every file and return the manifest. Raises: ArtifactError that names the file."""
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        try:
            actual = digest_file(file) if file.is_file() else "missing"
        except OSError as error:
            actual = f"unreadable ({error})"
        if actual != expected:
            raise ArtifactError(
                f"{file} has digest {actual}, its manifest says {expected}; restore it or remove {path}"
            )
    return manifest


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush a directory and everything in it."""
    for child in folder.rglob("*"):
        sync(child)
    sync(folder)
