"""Commands for a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.app import console


def cluster_file(
    differences: Annotated[list[Path] | None, typer.Argument(help="e.g. configs/cluster/gcp.yaml")] = None,
) -> None:
    """Print cluster.yaml merged with other files, for `ray up`; see docs/cluster.md."""
    import yaml

    from actors.cli.cluster_file import BASE, merged

    print(yaml.safe_dump(merged(BASE, differences or []), sort_keys=False, width=1000), end="")


service = typer.Typer(help="Run Ray's head node and Ratchet as a service; see docs/cluster.md.", no_args_is_help=True)


ServiceDir = Annotated[Path, typer.Option("--dir", help="Run directory")]


Head = Annotated[list[str], typer.Argument(help="-- ray start --head ...", show_default=False)]


UpConfig = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; a resumed run uses its own")]


UpSettings = Annotated[list[str] | None, typer.Option("--set", help="A setting such as serve.replicas=2")]


@service.command("start")
def service_start(dir: ServiceDir, head: Head, config: UpConfig = None, set: UpSettings = None) -> None:
    """Start the service in the background; returns when Ray is up."""
    from actors.cli.service import start

    up = [*(["--config", str(config)] if config else []), *(f"--set={setting}" for setting in set or [])]
    console.print(f"started; the log is {start(dir, [*up, '--', *head])}", soft_wrap=True)


@service.command("run")
def service_run(dir: ServiceDir, head: Head, config: UpConfig = None, set: UpSettings = None) -> None:
    """Run the service in the foreground, for systemd. Continues from the state in Ray's Redis, if there is one."""
    from actors.cli.service import run

    run(dir, [*(["--config", str(config)] if config else []), *(set or [])], head)


@service.command("stop")
def service_stop(dir: ServiceDir) -> None:
    """Stop Ratchet cleanly, then Ray's head node."""
    from actors.cli.service import stop

    stop(dir)
