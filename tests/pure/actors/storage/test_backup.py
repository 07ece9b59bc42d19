"""A copy of a run that goes on is the run as it stood at one moment, and becomes a run again."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.cli.main import app
from actors.storage.backup import backup, restore
from actors.storage.run_dir import CONFIG_FILE
from core import config as configuration
from core.artifacts import MANIFEST, appearing, digest_file
from core.errors import ArtifactError, ConfigError, StoreError
from core.messages import PolicyRef, Published, Vote
from core.store.facts import BufferCounts, LineageFact
from core.store.records import fact, message
from core.store.writer import FILE, RunReader, RunStore
from methods.data.held_out import ANCHORS, UNFINISHED


def version(run_dir: Path, number: int) -> Published:
    path = run_dir / "versions" / f"v{number:04d}"
    with appearing(path, {"ref": f"policy@v{number}"}) as aside:
        (aside / "weights.safetensors").write_bytes(bytes([number]) * 5000)
    ref, parent = PolicyRef(version=number), PolicyRef(version=max(0, number - 1))
    return Published(ref=ref, path=str(path), parent=parent, window=number, fingerprint=f"f{number}")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Four versions: v1 served, v2 rejected, v3 undecided."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(configuration.dump(configuration.load(None)))
    store = RunStore(folder)
    store.write([fact("base", version(folder, 0).model_dump(mode="json"))])
    for number in (1, 2, 3):
        published = version(folder, number)
        store.write([message("versions", str(published.ref), str(published.parent), published)])
    states = {"1": "promoted", "2": "rejected", "3": "proven"}
    store.write([fact("lineage", {"states": states, "serve": 1, "champion": 1})])
    store.close()
    return folder


def steps(store: RunStore, number: int) -> None:
    """A vote and the count of votes, in one transaction."""
    vote = Vote(id=str(number), prompt_id="p", answer="x" * 500)
    store.write([message("votes", vote.id, "p", vote), BufferCounts(accepted=number + 1).record()])


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Somebody writes all the time."""
    store, stop = RunStore(folder), threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            steps(store, number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        store.close()


def test_a_backup_of_a_run_that_is_written_to_is_one_moment_of_it_and_restores_to_a_run(
    run_dir: Path, tmp_path: Path
) -> None:
    with writing(run_dir):
        while RunReader(run_dir).count("votes") < 50:
            pass
        backups = [backup(run_dir, tmp_path / f"b{n}") for n in range(3)]
        during = RunReader(run_dir).count("votes")
    for number, taken in enumerate(backups):
        assert taken.versions == [0, 1, 2, 3] and taken.pruned == []
        restored = tmp_path / f"r{number}"
        assert restore(taken.folder, restored) == [0, 1, 2, 3]
        reader = RunReader(restored)
        counts = reader.read(BufferCounts)
        assert counts is not None and 50 <= reader.count("votes") == counts.accepted <= during
        store = RunStore(restored)
        steps(store, reader.count("votes"))
        store.close()
        assert (restored / CONFIG_FILE).read_bytes() == (run_dir / CONFIG_FILE).read_bytes()
    for file in (run_dir / "versions").rglob("*"):
        if file.is_file():
            assert digest_file(restored / file.relative_to(run_dir)) == digest_file(file)


def test_a_restored_run_finds_its_versions_where_it_is_now(run_dir: Path, tmp_path: Path) -> None:
    restore(backup(run_dir, tmp_path / "b").folder, tmp_path / "r")
    run_dir.rename(tmp_path / "gone")
    paths = [Path(published.path) for published in RunReader(tmp_path / "r").versions()]
    assert paths == [tmp_path / "r" / "versions" / f"v000{n}" for n in (1, 2, 3)]
    assert all((path / MANIFEST).is_file() for path in paths)


def test_the_anchors_that_a_run_made_or_still_makes_are_in_its_backup(run_dir: Path, tmp_path: Path) -> None:
    for name in (ANCHORS, UNFINISHED):
        (run_dir / name).write_bytes(name.encode())
    backup(run_dir, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    assert [(tmp_path / "again" / name).read_bytes() for name in (ANCHORS, UNFINISHED)] == [
        ANCHORS.encode(),
        UNFINISHED.encode(),
    ]


def test_a_version_that_was_pruned_is_left_out_and_named(run_dir: Path, tmp_path: Path) -> None:
    for file in (run_dir / "versions" / "v0002").iterdir():
        if run_dir.exists() and file.name != MANIFEST:
            file.unlink()
    (run_dir / "versions" / "v0002" / MANIFEST).unlink()
    (run_dir / "versions" / "v0002").rmdir()
    with pytest.raises(ArtifactError, match=r"v0002 cannot be copied .* the run needs it"):
        backup(run_dir, tmp_path / "b0")  # the parent of what is undecided
    store = RunStore(run_dir)
    store.write(
        [fact("lineage", {"states": {"1": "promoted", "2": "rejected", "3": "held"}, "serve": 1, "champion": 1})]
    )
    store.close()
    taken = backup(run_dir, tmp_path / "b1")
    assert (taken.versions, taken.pruned) == ([0, 1, 3], [2])


@pytest.mark.parametrize(
    "file", [FILE, CONFIG_FILE, "versions/v0001/weights.safetensors", "versions/v0000/manifest.json"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_backup_is_refused_by_the_name_of_the_file_and_nothing_is_made(
    file: str, harm: str, run_dir: Path, tmp_path: Path
) -> None:
    folder = backup(run_dir, tmp_path / "b").folder
    damaged = folder / file
    body = damaged.read_bytes()
    match harm:
        case "flip":
            damaged.write_bytes(body[:50] + bytes([body[50] ^ 1]) + body[51:])
        case "cut":
            damaged.write_bytes(body[:-1])
        case _:
            damaged.unlink()
    with pytest.raises(ArtifactError, match=f"{file} has digest .* restore it or remove"):
        restore(folder, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_damaged_run_makes_no_backup(run_dir: Path, tmp_path: Path) -> None:
    weights = run_dir / "versions" / "v0001" / "weights.safetensors"
    weights.write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"run/versions/v0001/weights\.safetensors has digest"):
        backup(run_dir, tmp_path / "b")
    (run_dir / FILE).write_bytes((run_dir / FILE).read_bytes()[:6000])
    with pytest.raises(StoreError, match=r"run\.sqlite"):
        backup(run_dir, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_nothing_is_ever_written_over(run_dir: Path, tmp_path: Path) -> None:
    folder = backup(run_dir, tmp_path / "b").folder
    with pytest.raises(ConfigError, match="never overwrites a folder: choose a new one with --to"):
        backup(run_dir, folder)
    with pytest.raises(ConfigError, match="never overwrites a run: choose a new --dir"):
        restore(folder, run_dir)


def test_a_version_folder_is_no_backup(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no backup of a run"):
        restore(run_dir / "versions" / "v0001", tmp_path / "r")
    with pytest.raises(ArtifactError, match="does not exist"):
        restore(tmp_path / "nothing", tmp_path / "r")


def test_a_manifest_that_names_files_outside_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / MANIFEST).write_text('{"kind": "backup", "files": {"../../evil": "0"}}')
    with pytest.raises(ArtifactError, match=r"lists '\.\./\.\./evil', which does not lie in"):
        restore(tmp_path / "b", tmp_path / "r")


def test_the_commands_say_what_they_did(run_dir: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["backup", str(run_dir), "--to", str(tmp_path / "b")])
    assert told.exit_code == 0 and "4 versions and the store" in told.output
    told = CliRunner().invoke(app, ["restore", str(tmp_path / "b"), "--dir", str(tmp_path / "r")])
    assert told.exit_code == 0 and "up --dir" in told.output
    lineage = RunReader(tmp_path / "r").read(LineageFact)
    assert lineage is not None and lineage.serve == 1
