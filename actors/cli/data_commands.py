"""Commands that read a run's data, or write it to files."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.app import DEFAULT, ConfigFile, Overrides, RunDirOption, console, load
from actors.cli.client import get, live, post
from actors.cli.model_command import prepared
from actors.cli.temporary import ENGINE_SOCKET, check_temporary_folder
from actors.storage.run_dir import CONFIG_FILE, find, live_url
from core.errors import RatchetError
from core.shipped import PROGRAM


def status(dir: RunDirOption = None) -> None:
    """Show the state of a run: its versions, and its live status if it is running."""
    from actors.cli.progress import versions_table
    from actors.inspect.report import version_rows
    from core.store.writer import RunReader

    path = find(dir)
    url = live_url(path)
    reader = RunReader(path)
    console.print(f"{path}  {'serving on ' + url if url else 'stopped'}", soft_wrap=True)
    console.print(versions_table(version_rows(reader), monitors=True))
    if url:
        console.print_json(json.dumps(get(f"{url}/status")))


def versions(
    version: Annotated[
        str | None, typer.Argument(help="One version, such as v12: shows whose votes it learned from")
    ] = None,
    dir: RunDirOption = None,
) -> None:
    """Show every version with its verdict, or the voters behind one version."""
    from actors.cli.progress import versions_table
    from actors.inspect.report import version_rows
    from actors.inspect.trace import voters
    from core.store.writer import RunReader

    reader = RunReader(find(dir))
    if version is None:
        return console.print(versions_table(version_rows(reader)))
    if not version.removeprefix("v").isdecimal():
        raise RatchetError(f"{version!r} is not a version; expected the form v12")
    behind = voters(reader, int(version.removeprefix("v")))
    console.print(f"{version}: {len(behind)} people voted on the prompts of its window")
    for voter, votes in behind.items():
        console.print(f"  {votes:5}  {voter}")


def trace(
    id: Annotated[
        str, typer.Argument(help="Id of an answer, feedback, vote, prompt, group, candidate, example or lease")
    ],
    dir: RunDirOption = None,
) -> None:
    """Follow an id through votes, groups and examples to the versions that learned from it; prints JSON."""
    from actors.inspect.trace import trace as follow
    from core.store.writer import RunReader

    console.print_json(json.dumps(follow(RunReader(find(dir)), id)))


def export_data(
    kind: Annotated[str, typer.Argument(help="sft: winners; kto: likes and dislikes; dpo: pairs and corrections")],
    to: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet")],
    dir: RunDirOption = None,
) -> None:
    """Write samples or votes in TRL's dataset formats."""
    from actors.inspect.export_data import export as write
    from core.store.writer import RunReader

    rows = write(RunReader(find(dir)), kind, to)
    console.print(f"{rows} rows in {to}", soft_wrap=True, highlight=False)


def evaluate(
    version: str = typer.Argument("v0", help="Version, e.g. v3; must be loaded"), dir: RunDirOption = None
) -> None:
    """Measure the accuracy of a loaded version on the report questions."""
    reply = post(f"{live(find(dir))}/admin/eval", {"argument": version}, timeout_s=900).json()
    console.print(
        f"v{reply['version']}: {100 * reply['accuracy']:.1f}% "
        f"({100 * reply['low']:.1f}-{100 * reply['high']:.1f}) on {reply['n']} questions"
    )


GATE_STATUS = {"promote": 0, "reject": 10, "hold": 11}
"""Exit status of `gate` by verdict. An error is 1, wrong usage 2."""


def gate(
    candidate: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter or of a whole model, as safetensors")],
    dir: RunDirOption = None,
) -> None:
    """Weigh a checkpoint of the run's base model as the gate would. A checkpoint that the engine cannot hold as a whole
    is refused. Exit status: 0 promote, 10 reject, 11 hold, 1 error, 2 wrong usage."""
    from actors.cli.offline import weigh_checkpoint

    check_temporary_folder(ENGINE_SOCKET)
    decision = weigh_checkpoint(candidate, find(dir), console)
    said = f"{decision.verdict} ({decision.standing}): {decision.reason} ({decision.probes} probes)"
    console.print(said, soft_wrap=True)
    sys.exit(GATE_STATUS[decision.verdict])


def anchors(
    questions: Annotated[Path, typer.Argument(help="JSONL or Parquet of held-out prompts, without answers")],
    to: Annotated[Path, typer.Option(help="Parquet file to write, also in a new folder; then set gate.anchors to it")],
    overrides: Overrides = None,
    config: ConfigFile = DEFAULT,
    samples: int = 32,
    min_share: float = 0.3,
) -> None:
    """Make the gate's anchors for a model: the model's majority answers to held-out questions. After an interruption
    the same command goes on where it was."""
    from actors.cli.offline import make_anchors

    check_temporary_folder(ENGINE_SOCKET)
    resolved = prepared(load(config, overrides or []))
    asked = resolved.prompts.model_copy(update={"path": str(questions), "split": None})
    with console.status("starting the engine") as status:
        made = make_anchors(asked, resolved, to, samples, min_share, status.update)
    for skipped in made.skipped:
        console.print(f"skipped {skipped}", style="yellow", soft_wrap=True)
    summary = f"{made.anchors} anchors of {made.questions} questions in {to}"
    console.print(f"{summary}; {len(made.skipped)} were skipped" if made.skipped else summary, soft_wrap=True)


def export(
    version: Annotated[str, typer.Argument(help="e.g. v3")],
    to: Annotated[Path | None, typer.Option(help="Folder to write; RUN/export/VERSION if not given")] = None,
    merged: Annotated[bool, typer.Option(help="Write a whole model with the adapter merged in")] = False,
    dir: RunDirOption = None,
) -> None:
    """Write a version as a folder that transformers or peft can load."""
    from actors.cli.offline import export_version

    path = find(dir)
    written = export_version(path, load(path / CONFIG_FILE, []), version, to, merged)
    console.print(str(written), soft_wrap=True)


def backup(
    run: Annotated[str | None, typer.Argument(help="Run directory; the latest if not given")] = None,
    to: Annotated[Path, typer.Option(help="Folder to write; must not exist")] = Path("backup"),
) -> None:
    """Back up a run, running or stopped, into a folder; `restore` makes a run from it."""
    from actors.storage.backup import backup as take

    taken = take(find(run), to)
    size = f"{len(taken.versions)} versions and the store, {taken.bytes / 2**20:.1f} MiB"
    console.print(f"{size}, in {taken.folder}", soft_wrap=True)
    if taken.pruned:
        console.print(
            f"not in the backup, pruned earlier: {', '.join(f'v{version}' for version in taken.pruned)}", style="dim"
        )


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote")],
    dir: Annotated[Path, typer.Option("--dir", help="Run directory to create; must not exist")],
) -> None:
    """Make a run directory from a backup, and check every file; `up --dir` resumes it."""
    from actors.storage.backup import restore as make

    versions = make(folder, dir)
    said = f"{dir} has {len(versions)} versions; resume it with {PROGRAM} up --dir {dir}"
    console.print(said, soft_wrap=True)
