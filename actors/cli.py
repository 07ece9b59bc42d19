"""The `ratchet` command."""

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from actors.rundir import CONFIG_FILE, find, live_url
from core import config as configuration
from core.config import Config
from core.errors import RatchetError

app = typer.Typer(
    help="Serves a language model and makes it better while it serves, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 160)

DEFAULT = Path("configs/tiny.yaml")
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings such as method.sampler.n=16", show_default=False)]
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML file of settings")]
RunDirOption = Annotated[str | None, typer.Option("--dir", help="Run directory; the latest if not given")]


@app.command()
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
    from actors.up import up as run_up

    named = {"run.versions": versions, "run.seed": seed, "serve.port": port, "run.dir": dir}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    own = Path(dir) / CONFIG_FILE if dir else DEFAULT
    chosen = config or (own if own.is_file() else DEFAULT)
    path = run_up(_load(chosen, [*(overrides or []), *given]), console, address)
    console.print(str(path), soft_wrap=True, highlight=False)


@app.command("config")
def show_config(overrides: Overrides = None, config: ConfigFile = DEFAULT) -> None:
    """Print every setting, resolved."""
    print(configuration.dump(_load(config, overrides or [])), end="")


@app.command()
def status(dir: RunDirOption = None) -> None:
    """How a run stands: live if it is up, else what its store says."""
    from actors.progress import versions_table
    from actors.report import version_rows
    from core.store import RunReader

    path = find(dir)
    url = live_url(path)
    reader = RunReader(path)
    console.print(f"{path}  {'serving on ' + url if url else 'stopped'}", soft_wrap=True)
    console.print(versions_table(version_rows(reader)))
    if url:
        console.print_json(json.dumps(_get(f"{url}/status")))


@app.command()
def versions(
    version: Annotated[str | None, typer.Argument(help="Only this one, such as v12, with the voters behind it")] = None,
    dir: RunDirOption = None,
) -> None:
    """Every version with its verdict, or one with whose votes made it."""
    from actors.progress import versions_table
    from actors.report import version_rows
    from actors.trace import voters
    from core.store import RunReader

    reader = RunReader(find(dir))
    if version is None:
        return console.print(versions_table(version_rows(reader)))
    if not version.removeprefix("v").isdecimal():
        raise RatchetError(f"{version!r} names no version; expected the form v12")
    behind = voters(reader, int(version.removeprefix("v")))
    console.print(f"{version}: votes of {len(behind)} people are in the ballots of its window")
    for voter, votes in behind.items():
        console.print(f"  {votes:5}  {escape(voter)}")


@app.command()
def trace(
    id: Annotated[str, typer.Argument(help="Of an answer, feedback, vote, prompt, group, candidate, example or lease")],
    dir: RunDirOption = None,
) -> None:
    """The way over votes, groups and examples to the versions that learned from it, step by step, as JSON."""
    from actors.trace import trace as follow
    from core.store import RunReader

    console.print_json(json.dumps(follow(RunReader(find(dir)), id)))


@app.command()
def forget(
    voter: Annotated[str, typer.Argument(help="A voter such as shop/ann, or a key with all its users")],
    dir: RunDirOption = None,
) -> None:
    """Remove what came from a voter, and name the versions that learned with it."""
    told = _post(f"{_live(find(dir))}/admin/forget", {"argument": voter}).json()
    versions = ", ".join(f"v{version}" for version in told["versions"]) or "none"
    console.print(
        f"{told['votes']} votes and {told['rows'] - told['votes']} other rows removed; learned with it: {versions}"
    )


@app.command("export-data")
def export_data(
    kind: Annotated[str, typer.Argument(help="sft: winners; kto: liked or not; dpo: pairs and corrections")],
    to: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet")],
    dir: RunDirOption = None,
) -> None:
    """Write samples or votes in the formats that TRL reads."""
    from actors.export_data import export as write
    from core.store import RunReader

    console.print(f"{write(RunReader(find(dir)), kind, to)} rows in {to}", soft_wrap=True, highlight=False)


@app.command()
def vote(
    response: Annotated[str, typer.Argument(help="The id of an answer, such as chatcmpl-v3-...")],
    good: Annotated[bool | None, typer.Option("--good/--bad", help="Whether the answer is good")] = None,
    correction: Annotated[str | None, typer.Option(help="A better answer, word for word")] = None,
    choice: Annotated[int, typer.Option(help="Which choice, from 0")] = 0,
    user: Annotated[str, typer.Option(help="Who votes, below the key's name")] = "",
    dir: RunDirOption = None,
) -> None:
    """Vote on an answer of a running system."""
    if (good is None) == (correction is None):
        raise RatchetError("say one thing: --good, --bad or --correction TEXT")
    said = {"binary": good} if good is not None else {"correction": correction}
    reply = _post(f"{_live(find(dir))}/v1/feedback", {"response_id": response, "choice": choice, "user": user, **said})
    console.print(reply.json()["results"][0]["result"])


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="What to ask; sample questions if not given")] = None,
    dir: RunDirOption = None,
    version: Annotated[str, typer.Option(help="policy, or a promoted version such as policy@v3")] = "policy",
) -> None:
    """Ask the served policy."""
    from actors.up import sample_questions

    path = find(dir)
    config = _load(path / CONFIG_FILE, [])
    if question is None:
        console.print("Ask something of the kind that the model knows, for example:")
        for sample in sample_questions(config):
            console.print(f"  ./run ask {escape(json.dumps(sample))}", soft_wrap=True)
        return
    body = {"model": version, "messages": [{"role": "user", "content": question}], "temperature": 0}
    body |= {"max_tokens": config.method.sampler.max_tokens}
    reply = _post(f"{_live(path)}/v1/chat/completions", body)
    console.print(escape(reply.json()["choices"][0]["message"]["content"]))
    console.print(f"[dim]policy version {reply.headers['x-policy-version']}[/]")


@app.command("eval")
def evaluate(version: str = typer.Argument("v0", help="e.g. v3; must be loaded"), dir: RunDirOption = None) -> None:
    """Accuracy of a loaded version on the report's questions."""
    reply = _post(f"{_live(find(dir))}/admin/eval", {"argument": version}, timeout_s=900).json()
    console.print(
        f"v{reply['version']}: {100 * reply['accuracy']:.1f}% "
        f"({100 * reply['low']:.1f}-{100 * reply['high']:.1f}) on {reply['n']} questions"
    )


@app.command()
def pause(reason: str = "paused by hand", dir: RunDirOption = None) -> None:
    """Stop learning; serving goes on."""
    _post(f"{_live(find(dir))}/admin/pause", {"argument": reason})
    console.print("learning is paused; `ratchet resume` goes on")


@app.command()
def resume(dir: RunDirOption = None) -> None:
    """Go on learning."""
    _post(f"{_live(find(dir))}/admin/resume", {})
    console.print("learning goes on")


Reason = Annotated[str, typer.Option(help="Written into the run's history")]


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="e.g. v3")], reason: Reason = "", dir: RunDirOption = None
) -> None:
    """Serve a version whatever the gate said; the next promotion of the gate replaces it, unless you hold."""
    told = _by_hand("promote", dir, reason, version)
    console.print(f"v{told['serve']} is promoted by hand (before: v{told['before']})")


@app.command()
def rollback(
    version: Annotated[str | None, typer.Argument(help="e.g. v3; the served one if not given")] = None,
    reason: Reason = "",
    dir: RunDirOption = None,
) -> None:
    """Stop serving a version: users get the champion again, and what the version sampled is learned from no more."""
    served = _get(f"{_live(find(dir))}/status")["versions"]["slots"]["serve"] if version is None else None
    told = _by_hand("rollback", dir, reason, version or f"v{served}")
    console.print(f"v{told['serve']} is served (before: v{told['before']})")


@app.command()
def hold(
    off: Annotated[bool, typer.Option("--off", help="End the hold")] = False,
    reason: Reason = "",
    dir: RunDirOption = None,
) -> None:
    """Serve what is served now and nothing else, until `hold --off`; learning and weighing go on."""
    told = _by_hand("release" if off else "hold", dir, reason)
    console.print(f"v{told['serve']} is served" + ("" if off else ", and held; `ratchet hold --off` goes on"))


@app.command()
def gate(candidate: Path, dir: RunDirOption = None) -> None:
    """Weigh any checkpoint of the run's base (a PEFT adapter, or a whole model) as the gate would."""
    from actors.offline import weigh_checkpoint

    decision = weigh_checkpoint(candidate, find(dir), console)
    console.print(f"{decision.verdict} ({decision.standing}): {decision.reason} ({decision.probes} probes)")
    sys.exit(0 if decision.verdict == "promote" else 1)


@app.command()
def anchors(
    questions: Annotated[Path, typer.Argument(help="JSONL or Parquet of held-out prompts, without answers")],
    to: Annotated[Path, typer.Option(help="Parquet file to write; name it in gate.anchors")],
    overrides: Overrides = None,
    config: ConfigFile = DEFAULT,
    samples: int = 32,
    min_share: float = 0.3,
) -> None:
    """Make the gate's anchors for a model: its own majority answers to held-out questions."""
    from actors.offline import make_anchors

    resolved = _load(config, overrides or [])
    asked = resolved.prompts.model_copy(update={"path": str(questions), "split": None})
    total, kept = make_anchors(asked, resolved, to, samples, min_share)
    console.print(f"{kept} anchors of {total} questions in {to}")


@app.command()
def export(
    version: Annotated[str, typer.Argument(help="e.g. v3")],
    to: Annotated[Path | None, typer.Option(help="Folder to write; RUN/export/VERSION if not given")] = None,
    merged: Annotated[bool, typer.Option(help="Write a whole model with the adapter merged in")] = False,
    dir: RunDirOption = None,
) -> None:
    """Write a version as a folder that plain transformers or peft loads."""
    from actors.offline import export_version

    path = find(dir)
    console.print(str(export_version(path, _load(path / CONFIG_FILE, []), version, to, merged)), soft_wrap=True)


@app.command()
def backup(
    run: Annotated[str | None, typer.Argument(help="Run directory; the latest if not given")] = None,
    to: Annotated[Path, typer.Option(help="Folder to write; must not exist")] = Path("backup"),
) -> None:
    """Copy a run, running or stopped, into a folder that `restore` makes a run of again."""
    from actors.backup import backup as take

    taken = take(find(run), to)
    console.print(f"{len(taken.versions)} versions and the store, {taken.bytes / 2**20:.1f} MiB, in {taken.folder}")
    if taken.pruned:
        console.print(f"[dim]pruned before: {', '.join(f'v{version}' for version in taken.pruned)}[/]")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `backup` wrote")],
    dir: Annotated[Path, typer.Option("--dir", help="Run directory to make; must not exist")],
) -> None:
    """Make a run directory of a backup, every file checked; `up --dir` goes on with it."""
    from actors.backup import restore as make

    versions = make(folder, dir)
    console.print(f"{dir} has {len(versions)} versions; go on with ./run up --dir {dir}", soft_wrap=True)


@app.command()
def keys(
    name: Annotated[str, typer.Argument(help="Whose key it is, as app-1; shown in votes and errors")],
    role: Annotated[Literal["user", "admin"], typer.Option(help="admin may pause, promote, roll back, vote")] = "user",
    file: Annotated[Path, typer.Option(help="Keys file to append to; name it in serve.access.keys")] = Path("keys.txt"),
) -> None:
    """Make a key for the HTTP service: its hash goes into the file, the key itself is shown once."""
    from serve import keys_file

    secret = keys_file.add(file, name, role)
    told = Console(stderr=True, width=console.width)
    told.print(f"{name} ({role}) is in {file}; a run started with serve.access.keys={file} knows it", soft_wrap=True)
    told.print("[dim]shown once; send it as `Authorization: Bearer KEY`, or set RATCHET_KEY for these commands[/]")
    print(secret)


@app.command("cluster-file")
def cluster_file(
    differences: Annotated[list[Path] | None, typer.Argument(help="e.g. configs/cluster/gcp.yaml")] = None,
) -> None:
    """Print cluster.yaml with differences laid over it, for `ray up`; see docs/cluster.md."""
    import yaml

    from actors.cluster_file import BASE, merged

    print(yaml.safe_dump(merged(BASE, differences or []), sort_keys=False, width=1000), end="")


service = typer.Typer(help="Ray's head and Ratchet on it as a service; see docs/cluster.md.", no_args_is_help=True)
app.add_typer(service, name="service")
ServiceDir = Annotated[Path, typer.Option("--dir", help="Run directory")]


@service.command("start")
def service_start(
    dir: ServiceDir,
    head: Annotated[list[str], typer.Argument(help="-- ray start --head ...")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; a resumed run has its own")] = None,
    set: Annotated[list[str] | None, typer.Option(help="A setting such as serve.replicas=2")] = None,
) -> None:
    """Start it in the background; returns when Ray is up."""
    from actors.service import start

    console.print(f"started; its log is {start(dir, config, head, set or [])}", soft_wrap=True)


@service.command("run")
def service_run(dir: ServiceDir) -> None:
    """Run, in the foreground, what was started before: for boot."""
    from actors.service import run

    run(dir)


@service.command("stop")
def service_stop(dir: ServiceDir) -> None:
    """End Ratchet in order, then Ray's head."""
    from actors.service import stop

    stop(dir)


def main() -> None:
    """An error is one readable line with the remedy; details are in the run's logs."""
    try:
        app()
    except RatchetError as error:
        console.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)


def _by_hand(command: str, dir: str | None, reason: str, version: str | None = None) -> dict[str, Any]:
    """Signed with the name of the operating system's user."""
    signed = {"version": version, "by": getpass.getuser(), "reason": reason}
    return _post(f"{_live(find(dir))}/admin/{command}", {"argument": signed}).json()


def _told(reply: httpx.Response) -> str:
    """The message of an error in OpenAI's shape, or what else came."""
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}: {reply.text[:200]}"


def _load(path: Path, overrides: list[str]) -> Config:
    return configuration.load(path, overrides)


def _live(path: Path) -> str:
    url = live_url(path)
    if url is None:
        raise RatchetError(f"{path} is not running; start it with ./run up --dir {path}")
    return url


def _bearer() -> dict[str, str]:
    """For a run with keys. Raises: RatchetError."""
    key = os.environ.get("RATCHET_KEY", "").strip()
    if not key.isascii() or len(key.split()) > 1:
        raise RatchetError("RATCHET_KEY holds no key; set it to one that `ratchet keys NAME` showed")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _get(url: str) -> Any:
    try:
        return httpx.get(url, headers=_bearer(), timeout=30, trust_env=False).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise RatchetError(f"{url} gives no answer ({error}); is the run still starting or stopping?") from None


def _post(url: str, body: dict[str, Any], timeout_s: float = 60) -> httpx.Response:
    try:
        reply = httpx.post(url, json=body, headers=_bearer(), timeout=timeout_s, trust_env=False)
    except httpx.HTTPError as error:
        raise RatchetError(f"{url} does not answer: {error}") from None
    if not reply.is_success:
        raise RatchetError(_told(reply))
    return reply


if __name__ == "__main__":
    main()
