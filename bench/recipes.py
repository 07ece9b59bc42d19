"""Does every recipe run on the real system, from prompts or people to a version that the gate decides?

Each recipe is one `ratchet up --versions N` on the embedded model, with its own overrides, in a directory of its own
under --out; what has ended is not repeated. While a recipe of people runs, a simulated person asks questions over HTTP,
marks answers right and wrong, prefers right ones to wrong ones, and writes corrections. One run each and no control: a
row shows that a recipe works, and nothing about how well it learns.

`ended`: decided (the verdicts follow), or why learning stopped.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from bench._runs import Records
from bench.poison import word_problems
from core.answers import extractor
from core.config import load
from methods import recipes

SETTINGS = (
    "learning.groups_per_window=64",
    "learning.plateau=null",
    "gate.max_probes=256",
    "report.per_version=0",
    "report.final=200",
    "method.votes.quorum=1",
    "method.votes.admins=[teacher]",
)
SMALL = {
    "self_rewarding": ("method.sampler.n=4", "method.options.judge.max_tokens=60", "learning.groups_per_window=24"),
    "meta_rewarding": ("method.sampler.n=4", "method.options.judge.max_tokens=60", "learning.groups_per_window=24"),
}
"""Recipes whose judges the embedded model cannot be: fewer prompts show it."""
LONGEST_S = 600
PEOPLE_AT_ONCE = 4


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipes", nargs="+", default=recipes.names(), metavar="NAME")
    parser.add_argument("--versions", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-recipes"))
    parser.add_argument("--config", default="configs/tiny.yaml")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.recipes = ["kto"]
    records = Records(options.out / "records.jsonl")
    found: dict[str, Any] = {}
    for name in options.recipes:
        settings = settings_of(name, options)
        row = records.get(name, settings)
        if row is None:
            row = asyncio.run(tried(name, settings, options))
            records.add(name, settings, row)
        found[name] = row
        print(json.dumps({"recipe": name, **row}), file=sys.stderr, flush=True)
    return {"recipes": found}


def settings_of(name: str, options: argparse.Namespace) -> list[str]:
    card = recipes.card(name)
    ends = [f"run.versions={options.versions}", f"run.seed={options.seed}", "serve.port=0"]
    return [*ends, *SETTINGS, f"method.recipe={name}", *card.overrides, *SMALL.get(name, ())]


async def tried(name: str, settings: list[str], options: argparse.Namespace) -> dict[str, Any]:
    folder = options.out / f"{name}-v{options.versions}-s{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "actors.cli", "up", "--config", options.config, "--dir", str(folder / "run")]
    with (folder / "up.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, *settings, stdout=log, stderr=log)
    voting = None
    if recipes.card(name).supervision == "people":
        voting = asyncio.create_task(vote(folder / "run" / "live.json", options.seed))
    try:
        await asyncio.wait_for(process.wait(), LONGEST_S)
    except TimeoutError:
        process.terminate()
        await process.wait()
    finally:
        if voting is not None:
            voting.cancel()
    return outcome(folder, process.returncode)


def outcome(folder: Path, code: int | None) -> dict[str, Any]:
    report = folder / "run" / "report.json"
    if code != 0 or not report.is_file():
        lines = [line for line in (folder / "up.log").read_text(errors="replace").splitlines() if line.strip()]
        why = next((line for line in reversed(lines) if "error" in line or "stopped" in line), lines[-1:])
        return {"ended": str(why)[:400]}
    body = json.loads(report.read_text())
    decided = [f"v{row['version']} {row['verdict']}" for row in body["versions"][1:]]
    kept = {name: body[name] for name in ("accuracy_start", "accuracy_end", "tokens_generated", "cpu_s")}
    return {"ended": "decided", "verdicts": decided, "why": body["versions"][-1]["reason"], **kept}


# --- a simulated person ----------------------------------------------------------------------------------------------


async def vote(live: Path, seed: int) -> None:
    """Ask and give feedback until canceled."""
    extract = extractor(load(None).method.answer)
    problems: Iterator[Any] = word_problems().draw_split(random.Random(f"recipes:{seed}"), "pool")
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def one_after_the_other() -> None:
            while True:
                try:
                    url = json.loads(live.read_text())["url"]
                    await feedback(client, url, next(problems), extract)
                except (httpx.HTTPError, OSError, ValueError, KeyError):  # not up yet, or going down
                    await asyncio.sleep(1)

        with suppress(asyncio.CancelledError):
            await asyncio.gather(*(one_after_the_other() for _ in range(PEOPLE_AT_ONCE)))


async def feedback(client: httpx.AsyncClient, url: str, problem: Any, extract: Any) -> None:
    """Thumbs for two answers to one problem, the right one above the wrong one, and a correction."""
    chat = [{"role": "user", "content": problem.question}]
    body = {"model": "policy", "messages": chat, "n": 2, "temperature": 1, "max_tokens": 110}
    reply = (await client.post(f"{url}/v1/chat/completions", json=body)).raise_for_status().json()
    right = [extract(choice["message"]["content"]) == str(problem.answer) for choice in reply["choices"]]
    about = {"response_id": reply["id"]}
    said: list[dict[str, Any]] = [
        {**about, "choice": i, "binary": good, "user": f"user{i}"} for i, good in enumerate(right)
    ]
    if sum(right) == 1:
        better, worse = right.index(True), right.index(False)
        said.append({**about, "choice": better, "better_than": {**about, "choice": worse}, "user": "judge"})
    said.append({**about, "correction": problem.solutions[0], "user": "teacher"})
    (await client.post(f"{url}/v1/feedback", json=said)).raise_for_status()
