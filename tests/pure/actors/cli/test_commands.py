"""Commands refuse what cannot work in one line, and print paths as they are."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from actors.cli.data_commands import GATE_STATUS
from actors.cli.main import app
from actors.cli.temporary import ENGINE_SOCKET, RAY_SOCKET, check_temporary_folder
from actors.storage.run_dir import RunDir
from core.config import load
from core.errors import ArtifactError, ConfigError
from core.store.writer import RunStore


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run = RunDir.open(load("configs/tiny.yaml", [f"run.dir={tmp_path / '[p]run'}"]))
    run.close()
    RunStore(run.path).close()
    return run.path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_data_is_exported_into_a_new_folder_and_its_path_printed_as_it_is(
    run_dir: Path, tmp_path: Path, suffix: str
) -> None:
    to = tmp_path / "new" / f"[p]rows{suffix}"
    told = CliRunner().invoke(app, ["export-data", "kto", "--to", str(to), "--dir", str(run_dir)])
    assert (told.exit_code, told.output) == (0, f"0 rows in {to}\n")
    assert to.is_file()


def test_data_is_not_exported_below_a_file(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = CliRunner().invoke(
        app, ["export-data", "kto", "--to", str(tmp_path / "file/a.jsonl"), "--dir", str(run_dir)]
    )
    assert isinstance(told.exception, ArtifactError) and "cannot be written" in str(told.exception)
    told = CliRunner().invoke(app, ["export-data", "kto", "--to", str(tmp_path / "new/a.csv"), "--dir", str(run_dir)])
    assert isinstance(told.exception, ConfigError)
    assert not (tmp_path / "new").exists()


def test_status_prints_the_path_of_a_run_as_it_is(run_dir: Path) -> None:
    assert f"{run_dir}  stopped" in CliRunner().invoke(app, ["status", "--dir", str(run_dir)]).output


def test_each_verdict_of_the_gate_has_an_exit_status_of_its_own_that_help_tells() -> None:
    assert GATE_STATUS == {"promote": 0, "reject": 10, "hold": 11}
    told = CliRunner().invoke(app, ["gate", "--help"]).output
    assert "0 promote, 10 reject, 11 hold, 1 error, 2 wrong usage" in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(("socket", "room"), [(RAY_SOCKET, 39), (ENGINE_SOCKET, 70)])
def test_a_temporary_folder_that_is_too_long_for_sockets_is_refused(socket: str, room: int) -> None:
    check_temporary_folder(socket, {"TMPDIR": "/" + "t" * (room - 1)})
    with pytest.raises(
        ConfigError, match=f"TMPDIR=/t+ has {room + 1} bytes, but a socket needs a folder of at most {room}"
    ):
        check_temporary_folder(socket, {"TMPDIR": "/" + "t" * room})
    check_temporary_folder(RAY_SOCKET, {"TMPDIR": "/" + "t" * 130, "RAY_TMPDIR": "/tmp"})


def test_up_and_gate_and_anchors_look_at_the_temporary_folder_first(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "t" * 130)
    for command in (
        ["up"],
        ["gate", str(tmp_path), "--dir", str(run_dir)],
        ["anchors", "q.jsonl", "--to", "a.parquet"],
    ):
        told = CliRunner().invoke(app, command)
        assert isinstance(told.exception, ConfigError) and "TMPDIR" in str(told.exception)
