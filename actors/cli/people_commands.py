"""Commands that act on a running system."""

import getpass
import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from actors.cli.app import Reason, RunDirOption, console, load
from actors.cli.client import get, live, post
from actors.storage.run_dir import CONFIG_FILE, find
from core.errors import RatchetError
from core.shipped import PROGRAM


def forget(
    voter: Annotated[str, typer.Argument(help="A voter such as shop/ann, or a key with all its users")],
    dir: RunDirOption = None,
) -> None:
    """Remove everything that came from a voter, and name the versions that learned from it."""
    removed = post(f"{live(find(dir))}/admin/forget", {"argument": voter}).json()
    versions = ", ".join(f"v{version}" for version in removed["versions"]) or "none"
    console.print(
        f"{removed['votes']} votes and {removed['rows'] - removed['votes']} other rows removed; "
        f"versions that learned from them: {versions}"
    )


def vote(
    response: Annotated[str, typer.Argument(help="The id of an answer, such as chatcmpl-v3-...")],
    good: Annotated[bool | None, typer.Option("--good/--bad", help="Whether the answer is good")] = None,
    correction: Annotated[str | None, typer.Option(help="A better answer, as it should read")] = None,
    choice: Annotated[int, typer.Option(help="Which choice, from 0")] = 0,
    user: Annotated[str, typer.Option(help="Name of the voter, below the key's name")] = "",
    dir: RunDirOption = None,
) -> None:
    """Vote on an answer of a running system."""
    if (good is None) == (correction is None):
        raise RatchetError("give exactly one of --good, --bad and --correction TEXT")
    said = {"binary": good} if good is not None else {"correction": correction}
    reply = post(f"{live(find(dir))}/v1/feedback", {"response_id": response, "choice": choice, "user": user, **said})
    console.print(reply.json()["results"][0]["result"])


def ask(
    question: Annotated[str | None, typer.Argument(help="The question; prints sample questions if not given")] = None,
    dir: RunDirOption = None,
    version: Annotated[
        str,
        typer.Option(help="policy, or a version such as policy@v3 (for admins also one that is weighed or held)"),
    ] = "policy",
) -> None:
    """Ask the served model a question. The examples of the run's task, if it has one, go before it."""
    from methods.data.samples import examples, sample_chats

    path = find(dir)
    config = load(path / CONFIG_FILE, [])
    if question is None:
        console.print("The model can answer questions such as:")
        for chat in sample_chats(config):
            console.print(f"  {PROGRAM} ask {json.dumps(chat[-1]['content'])}", soft_wrap=True)
        return
    messages = [*examples(config), {"role": "user", "content": question}]
    body = {"model": version, "messages": messages, "temperature": 0}
    body |= {"max_tokens": config.method.sampler.max_tokens}
    reply = post(f"{live(path)}/v1/chat/completions", body)
    console.print(reply.json()["choices"][0]["message"]["content"])
    console.print(f"policy version {reply.headers['x-policy-version']}", style="dim")


def pause(reason: str = "paused by hand", dir: RunDirOption = None) -> None:
    """Pause learning; serving continues."""
    post(f"{live(find(dir))}/admin/pause", {"argument": reason})
    console.print("learning is paused; `ratchet resume` resumes it")


def resume(dir: RunDirOption = None) -> None:
    """Resume learning."""
    post(f"{live(find(dir))}/admin/resume", {})
    console.print("learning has resumed")


def promote(
    version: Annotated[str, typer.Argument(help="e.g. v3")], reason: Reason = "", dir: RunDirOption = None
) -> None:
    """Serve a version regardless of the gate. The gate's next promotion replaces it, unless you hold it."""
    moved = _by_hand("promote", dir, reason, version)
    console.print(f"v{moved['serve']} is promoted by hand (before: v{moved['before']})")


def rollback(
    version: Annotated[str | None, typer.Argument(help="e.g. v3; the served version if not given")] = None,
    reason: Reason = "",
    dir: RunDirOption = None,
) -> None:
    """Stop serving a version: users get the champion again, and the version's samples are no longer learned from."""
    served = get(f"{live(find(dir))}/status")["versions"]["slots"]["serve"] if version is None else None
    moved = _by_hand("rollback", dir, reason, version or f"v{served}")
    console.print(f"v{moved['serve']} is served (before: v{moved['before']})")


def hold(
    off: Annotated[bool, typer.Option("--off", help="End the hold")] = False,
    reason: Reason = "",
    dir: RunDirOption = None,
) -> None:
    """Keep serving the current version until `hold --off`; learning and weighing continue."""
    served = _by_hand("release" if off else "hold", dir, reason)
    console.print(f"v{served['serve']} is served" + ("" if off else " and held; `ratchet hold --off` ends the hold"))


def keys(
    name: Annotated[str, typer.Argument(help="Name of the key's owner, such as app-1; shown in votes and errors")],
    role: Annotated[Literal["user", "admin"], typer.Option(help="admin may pause, promote, roll back, vote")] = "user",
    file: Annotated[Path, typer.Option(help="Keys file to append to; set serve.access.keys to it")] = Path("keys.txt"),
) -> None:
    """Make a key for the HTTP service. The file gets its hash; the key itself is printed once."""
    from serve.http import keys_file

    secret = keys_file.add(file, name, role)
    stderr = Console(stderr=True, width=console.width, markup=False, emoji=False)
    stderr.print(f"{name} ({role}) is in {file}; a run with serve.access.keys={file} accepts it", soft_wrap=True)
    stderr.print(
        "printed only once; send it as `Authorization: Bearer KEY`, or set RATCHET_KEY for these commands", style="dim"
    )
    print(secret)


def _by_hand(command: str, dir: str | None, reason: str, version: str | None = None) -> dict[str, object]:
    """Post a command signed with the name of the operating system's user."""
    signed = {"version": version, "by": getpass.getuser(), "reason": reason}
    return post(f"{live(find(dir))}/admin/{command}", {"argument": signed}).json()
