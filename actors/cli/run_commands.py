"""Commands that start a run, and show what it would be."""

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.app import DEFAULT, ConfigFile, Overrides, console, load
from actors.storage.run_dir import CONFIG_FILE
from core import config as configuration


def up(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; a resumed run has its own")] = None,
    versions: Annotated[int | None, typer.Option(help="End after so many decided candidates, with a report")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 takes a free one")] = None,
    dir: Annotated[str | None, typer.Option(help="Run directory; an existing one is resumed")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, e.g. auto; else a local one")] = None,
) -> None:
    """Start everything: serve the model, and make it better while it serves."""
    from actors.cli.up import up as run_up

    named = {"run.versions": versions, "run.seed": seed, "serve.port": port, "run.dir": dir}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    own = Path(dir) / CONFIG_FILE if dir else DEFAULT
    chosen = config or (own if own.is_file() else DEFAULT)
    path = run_up(load(chosen, [*(overrides or []), *given]), console, address)
    console.print(str(path), soft_wrap=True, highlight=False)


def show_config(overrides: Overrides = None, config: ConfigFile = DEFAULT) -> None:
    """Print every setting, resolved."""
    print(configuration.dump(load(config, overrides or [])), end="")
