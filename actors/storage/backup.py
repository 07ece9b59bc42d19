"""A copy of a run, taken while it goes on, and a run made of the copy again.

A backup holds what resuming needs: a snapshot of run.sqlite at one moment, config.yaml, and the folders of the versions
that the snapshot names. It appears whole, with a digest of every file. Metrics, logs, reports and exports are not in
it, nor are the model and the prompts, which lie outside the directory.
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

KIND = "backup"


@dataclass(frozen=True)
class Backup:
    folder: Path
    versions: list[int]
    pruned: list[int]
    """Versions that the run knows and whose folders were gone already."""
    bytes: int


def backup(run_dir: Path, to: Path) -> Backup:
    """Copy a run, running or stopped, to a new folder.

    Raises: ConfigError when `to` exists; StoreError or ArtifactError naming what of the run is damaged, StorageFull;
    then there is no `to`."""
    if to.exists():
        raise ConfigError(f"{to} exists; a backup is never written over another: choose a new folder with --to")
    manifest: dict[str, object] = {"kind": KIND, "run": run_dir.name, "taken_at": time.time()}
    with appearing(to.absolute(), manifest) as aside:
        _snapshot(run_dir / FILE, aside / FILE)
        shutil.copyfile(run_dir / CONFIG_FILE, aside / CONFIG_FILE)
        known, needed = _versions(aside)
        copied = [version for version in known if _copy_version(run_dir, aside, version, version in needed)]
        pruned = [version for version in known if version not in copied]
        manifest |= {"versions": copied, "pruned": pruned}
    size = sum(file.stat().st_size for file in to.rglob("*") if file.is_file())
    return Backup(to, copied, pruned, size)


def restore(folder: Path, to: Path) -> list[int]:
    """Make a run directory of a backup, every digest checked before and after. Returns the versions in it.

    Raises: ConfigError when `to` exists; ArtifactError naming the damaged file, StorageFull; then there is no `to`."""
    if to.exists():
        raise ConfigError(f"{to} exists; a run is never written over another: choose a new --dir")
    manifest = verify(folder)
    if manifest.get("kind") != KIND or not {FILE, CONFIG_FILE} <= manifest["files"].keys():
        raise ArtifactError(f"{folder} is no backup of a run; give a folder that `ratchet backup` wrote")
    with whole(to.absolute()) as aside:
        for name, expected in manifest["files"].items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
            if digest_file(aside / name) != expected:
                raise ArtifactError(f"{folder / name} was not copied as it is; is one of the two disks failing?")
        RunReader(aside).close()  # says what is wrong with it
        RunStore(aside).close()  # an older one is brought up to date; one that cannot be opened is refused
    return list(manifest.get("versions", []))


def _refusal(error: sqlite3.Error, source: Path, to: Path) -> StoreError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFull(f"no room on the disk for {to} ({error}); free some")
    return StoreError(f"{source} cannot be copied ({error}); restore an earlier backup")


def _snapshot(source: Path, to: Path) -> None:
    """The store as it stood at one moment, in one file without a log, compact. Its writer is not held up.

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
    """Versions that the snapshot knows, and those without which the run cannot go on."""
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
    """Whether it was there; pruning may take one away under the copy. Raises: ArtifactError when it is damaged, or
    gone though the run cannot go on without it."""
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
        verify(source)  # names the file that is damaged, where it can be mended
        raise
    return True


def _explained(error: OSError, source: Path) -> Exception:
    reasons: Iterable[object] = error.args[0] if isinstance(error, shutil.Error) else ()
    if any(f"[Errno {number}]" in str(reason) for reason in reasons for number in (28, 122)):
        return StorageFull(f"no room on the disk for a copy of {source}; free some")
    return ArtifactError(f"{source} cannot be copied ({error}); the run needs it: restore it from an earlier backup")
