"""How long does a run take to its first answer, and back to one after its replica died? Forked workers and Ray's own.

In turns: `forked`, workers from the fork server (`actors/runtime/forked_worker.py`), and `plain`, as Ray starts them.
`first_answer_s`: from the command to the first answer. `cpu_s`: CPU-seconds of all processes until then. `back_s`: from
SIGKILL of the only replica until a user is answered again, while learning goes on.
"""

import argparse
import asyncio
import os
import statistics
import time
from contextlib import suppress
from typing import Any

import httpx
import psutil

from bench._live import LiveRun, drill_arguments
from core.patching import SWITCH

KINDS = {"forked": "", "plain": "forked_workers"}
"""Side -> patches switched off."""
QUESTION = {"model": "policy", "messages": [{"role": "user", "content": "Tom has 5 apples."}], "max_tokens": 8}
BACK_S = 180.0


def arguments(parser: argparse.ArgumentParser) -> None:
    drill_arguments(parser, "runs/start")
    parser.add_argument("--rounds", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for index in range(1 if options.quick else options.rounds):
        for kind in sorted(KINDS, reverse=bool(index % 2)):
            rows[kind].append(asyncio.run(once(options, KINDS[kind])))
    found: dict[str, Any] = {kind: _spread(each) for kind, each in rows.items()}
    for name in rows["forked"][0]:
        ratios = [ours[name] / theirs[name] for ours, theirs in zip(rows["forked"], rows["plain"], strict=True)]
        found[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    return {"rounds": len(rows["forked"]), "spread": "min, median, max", **found}


async def once(options: argparse.Namespace, switched_off: str) -> dict[str, float]:
    live, before = LiveRun(options, [], anew=True), os.environ.get(SWITCH)
    os.environ[SWITCH] = switched_off
    began = time.monotonic()
    try:
        await live.up()
        row = {"first_answer_s": time.monotonic() - began, "cpu_s": cpu_s(live)}
        (replica,) = live.processes("ray::ServeReplica")
        replica.kill()
        killed = time.monotonic()
        async with httpx.AsyncClient(base_url=live.address, timeout=30, trust_env=False) as client:
            while not await _answers(client):
                if time.monotonic() > killed + BACK_S:
                    raise SystemExit(f"no answer {BACK_S:.0f} s after the replica died; see {live.folder}")
                await asyncio.sleep(0.1)
        return {**row, "back_s": time.monotonic() - killed}
    finally:
        os.environ.pop(SWITCH) if before is None else os.environ.update({SWITCH: before})
        await live.stop()


def cpu_s(live: LiveRun) -> float:
    """Of the run's processes, and of their children that ended."""
    total = 0.0
    for process in live.family():
        with suppress(psutil.Error):  # it ended just now
            total += sum(process.cpu_times()[:4])
    return total


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.post("/v1/chat/completions", json=QUESTION)).is_success
    except httpx.TransportError:
        return False


def _spread(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: [round(f(each), 1) for f in (min, statistics.median, max)] for name, each in columns.items()}
