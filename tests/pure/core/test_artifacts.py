import json
from pathlib import Path

import pytest

from core.artifacts import MANIFEST, appearing, read_manifest, verify
from core.errors import ArtifactError


def filled(path: Path, **manifest: object) -> Path:
    with appearing(path, dict(manifest)) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "weights").write_bytes(b"12")
        (aside / "empty").write_bytes(b"")
    return path


def test_a_directory_appears_whole_with_the_digest_of_every_file(tmp_path: Path) -> None:
    path = filled(tmp_path / "versions" / "v0001", step=3)
    manifest = verify(path)
    assert manifest["step"] == 3 and set(manifest["files"]) == {"inner/weights", "empty"}
    assert [child.name for child in path.parent.iterdir()] == ["v0001"]


def test_nothing_appears_and_nothing_is_left_when_filling_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), appearing(tmp_path / "v1", {}) as aside:
        (aside / "half").write_bytes(b"1")
        assert not (tmp_path / "v1").exists()
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_holds_what_was_learned_while_filling(tmp_path: Path) -> None:
    manifest: dict[str, object] = {}
    with appearing(tmp_path / "v1", manifest):
        manifest["loss"] = 0.5
    assert read_manifest(tmp_path / "v1")["loss"] == 0.5


def test_a_version_is_never_written_twice(tmp_path: Path) -> None:
    filled(tmp_path / "v1")
    with pytest.raises(ArtifactError, match="exists already"):
        filled(tmp_path / "v1")


def test_a_file_with_the_markers_name_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match="that name is reserved for the marker"),
        appearing(tmp_path / "v1", {}) as aside,
    ):
        (aside / MANIFEST).write_text("{}")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "v1")
    (path / "inner" / "weights").write_bytes(b"13")
    with pytest.raises(ArtifactError, match="inner/weights has digest"):
        verify(path)
    (path / "inner" / "weights").unlink()
    with pytest.raises(ArtifactError, match="weights has digest missing"):
        verify(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a finished artifact"),
        ("{", "is damaged"),
        ("[]", "lists no files"),
        (json.dumps({"files": 1}), "lists"),
    ],
)
def test_a_missing_or_damaged_manifest_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(tmp_path)
