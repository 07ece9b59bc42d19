"""The command line application, and the options that its commands share."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from core import config as configuration
from core.config import Config

app = typer.Typer(
    help="Serves a language model and improves it while it serves, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
"""Prints paths and people's words as they are; a line with styles is printed with `markup=True`, and escapes them."""


DEFAULT = Path("configs/tiny.yaml")


Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as method.sampler.n=16", show_default=False)]


ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML file of settings")]


RunDirOption = Annotated[str | None, typer.Option("--dir", help="Run directory; the latest if not given")]


Reason = Annotated[str, typer.Option(help="Recorded in the run's history")]


def load(path: Path, overrides: list[str]) -> Config:
    return configuration.load(path, overrides)
