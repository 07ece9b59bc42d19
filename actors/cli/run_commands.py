"""Commands that start a run, or show its config."""

import sys
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from actors.cli.app import DEFAULT, ConfigFile, Overrides, console, load
from actors.cli.model_command import prepared
from actors.cli.temporary import RAY_SOCKET, check_temporary_folder
from actors.storage.run_dir import CONFIG_FILE
from core import config as configuration


def up(
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; a resumed run uses its own")] = None,
    versions: Annotated[
        int | None, typer.Option(help="Stop after this many decided candidates and write a report")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed")] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve on; 0 picks a free one")] = None,
    dir: Annotated[str | None, typer.Option(help="Run directory; an existing one is resumed")] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, e.g. auto; starts a local one if not given")
    ] = None,
) -> None:
    """Serve the model and improve it while it serves."""
    from actors.cli.progress import LastingOutput
    from actors.cli.up import up as run_up

    if address is None:
        check_temporary_folder(RAY_SOCKET)
    console.file = cast(TextIO, LastingOutput(sys.stdout))
    sys.stderr = cast(TextIO, LastingOutput(sys.stderr))

    named = {"run.versions": versions, "run.seed": seed, "serve.port": port, "run.dir": dir}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    own = Path(dir) / CONFIG_FILE if dir else DEFAULT
    chosen = config or (own if own.is_file() else DEFAULT)
    path = run_up(prepared(load(chosen, [*(overrides or []), *given]), here=address is None), console, address)
    console.print(str(path), soft_wrap=True, highlight=False)


def show_config(overrides: Overrides = None, config: ConfigFile = DEFAULT) -> None:
    """Print the full config with all defaults."""
    print(configuration.dump(load(config, overrides or [])), end="")
