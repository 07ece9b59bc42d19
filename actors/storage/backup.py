"""Copies a run, running or stopped, into a backup folder, and restores a run from it.

A backup holds everything that resuming needs: a snapshot of run.sqlite, config.yaml, and the folders of the versions in
the snapshot. The folder appears only when it is complete, with a digest of every file. It does not hold metrics, logs,
reports and exports, nor the model and the prompts, which are outside the run directory.
"""

import shutil
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from actors.storage.run_dir import CONFIG_FILE
from core.artifacts import appearing, digest_file, verify, whole
from core.errors import ArtifactError, ConfigError, StorageFull, StoreError
from core.store.facts import BaseFact, LineageFact
from core.store.writer import FILE, RunReader, RunStore
from methods.data.held_out import ANCHORS, UNFINISHED

KIND = "backup"


@dataclass(frozen=True)
class Backup:
    folder: Path
    versions: list[int]
    pruned: list[int]
    """Versions whose folders were already pruned."""
    bytes: int


def backup(run_dir: Path, to: Path) -> Backup:
    """Copy a run, running or stopped, to a new folder.

    Raises: ConfigError if `to` exists; StoreError or ArtifactError naming the damaged part of the run; StorageFull.
    After an error `to` does not exist."""
    if to.exists():
        raise ConfigError(f"{to} exists; a backup never overwrites a folder: choose a new one with --to")
    manifest: dict[str, object] = {"kind": KIND, "run": run_dir.name, "taken_at": time.time()}
    with appearing(to.absolute(), manifest) as aside:
        _snapshot(run_dir / FILE, aside / FILE)
        shutil.copyfile(run_dir / CONFIG_FILE, aside / CONFIG_FILE)
        for name in (ANCHORS, UNFINISHED):  # of a run that makes its own
            if (run_dir / name).is_file():
                shutil.copyfile(run_dir / name, aside / name)
        known, needed = _versions(aside)
        copied = [version for version in known if _copy_version(run_dir, aside, version, version in needed)]
        pruned = [version for version in known if version not in copied]
        manifest |= {"versions": copied, "pruned": pruned}
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    return Backup(to, copied, pruned, size)


def restore(folder: Path, to: Path) -> list[int]:
    """Make a run directory from a backup, and check every digest before and after. Returns the versions in it.

    Raises: ConfigError if `to` exists; ArtifactError naming the damaged file; StorageFull. After an error `to` does not
    exist."""
    if to.exists():
        raise ConfigError(f"{to} exists; restore never overwrites a run: choose a new --dir")
    manifest = verify(folder)
    if manifest.get("kind") != KIND or not {FILE, CONFIG_FILE} <= manifest["files"].keys():
        raise ArtifactError(f"{folder} is no backup of a run; give a folder that `ratchet backup` wrote")
    with whole(to.absolute()) as aside:
        for name, expected in manifest["files"].items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
            if digest_file(aside / name) != expected:
                raise ArtifactError(f"{folder / name} differs after the copy; check both disks, then restore again")
        RunReader(aside).close()  # raises if the store is damaged
        RunStore(aside).close()  # migrates an older store; raises if it cannot be opened
    return list(manifest.get("versions", []))


def _refusal(error: sqlite3.Error, source: Path, to: Path) -> StoreError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFull(f"no room on the disk for {to} ({error}); free some space")
    return StoreError(f"{source} cannot be copied ({error}); restore an earlier backup")


def _snapshot(source: Path, to: Path) -> None:
    """Copy the store at one moment into one compact file without a log. Does not block the writer.

    Raises: StoreError, StorageFull."""
    try:
        db = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            db.execute("VACUUM INTO ?", (str(to),))
        finally:
            db.close()
        copy = sqlite3.connect(f"{to.absolute().as_uri()}?mode=ro", uri=True)
        try:
            ((found, *_), *_) = copy.execute("PRAGMA integrity_check(1)").fetchall()
        finally:
            copy.close()
    except sqlite3.Error as error:
        raise _refusal(error, source, to.parent) from None
    if found != "ok":
        raise StoreError(f"{source} is damaged ({found}); restore an earlier backup")


def _versions(folder: Path) -> tuple[list[int], set[int]]:
    """All versions in the snapshot, and those that the run needs to continue."""
    reader = RunReader(folder)
    try:
        published = {each.ref.version: each for each in reader.versions()}
        lineage = reader.read(LineageFact) or LineageFact()
        base = {0} if reader.read(BaseFact) is not None else set[int]()
    finally:
        reader.close()
    undecided = {version for version in published if lineage.states.get(version) in ("published", "proven", None)}
    used = {lineage.serve, lineage.champion, *(lineage.champions or ())}
    parents = {published[version].parent.version for version in undecided}
    return sorted(base | published.keys()), base | ((undecided | used | parents) & published.keys())


def _copy_version(run_dir: Path, aside: Path, version: int, needed: bool) -> bool:
    """Copy one version; returns whether it existed, since pruning may delete it during the copy. Raises: ArtifactError
    if it is damaged, or missing although the run needs it."""
    name = f"v{version:04d}"
    source, to = run_dir / "versions" / name, aside / "versions" / name
    try:
        shutil.copytree(source, to)
    except (FileNotFoundError, shutil.Error) as error:
        if source.exists() or needed:
            raise _explained(error, source) from None
        shutil.rmtree(to, ignore_errors=True)
        return False
    try:
        verify(to)
    except ArtifactError:
        verify(source)  # names the damaged file in the run, where it can be repaired
        raise
    return True


def _explained(error: OSError, source: Path) -> Exception:
    reasons: Iterable[object] = error.args[0] if isinstance(error, shutil.Error) else ()
    if any(f"[Errno {number}]" in str(reason) for reason in reasons for number in (28, 122)):
        return StorageFull(f"no room on the disk for a copy of {source}; free some space")
    return ArtifactError(f"{source} cannot be copied ({error}); the run needs it: restore it from an earlier backup")
