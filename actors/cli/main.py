"""The `ratchet` command: all commands by name, in the order of `--help`."""

import io
import sys

from rich.markup import escape

from actors.cli import cluster_commands, data_commands, method_commands, model_command, people_commands, run_commands
from actors.cli.app import app, console
from core.errors import RatchetError

COMMANDS = {
    "up": run_commands.up,
    "config": run_commands.show_config,
    "model": model_command.model,
    "methods": method_commands.methods,
    "compare": method_commands.compare,
    "status": data_commands.status,
    "versions": data_commands.versions,
    "trace": data_commands.trace,
    "forget": people_commands.forget,
    "export-data": data_commands.export_data,
    "vote": people_commands.vote,
    "ask": people_commands.ask,
    "eval": data_commands.evaluate,
    "pause": people_commands.pause,
    "resume": people_commands.resume,
    "promote": people_commands.promote,
    "rollback": people_commands.rollback,
    "hold": people_commands.hold,
    "gate": data_commands.gate,
    "anchors": data_commands.anchors,
    "export": data_commands.export,
    "backup": data_commands.backup,
    "restore": data_commands.restore,
    "keys": people_commands.keys,
    "cluster-file": cluster_commands.cluster_file,
}

for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(cluster_commands.service, name="service")


def main() -> None:
    """Prints an error as one line with its remedy; the details are in the run's logs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a letter that the terminal lacks must not end a command
    try:
        app()
    except RatchetError as error:
        console.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True, markup=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)
