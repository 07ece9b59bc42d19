"""Do memory or file descriptors of any process grow in an hour of full load on two cores?

The run has two policy replicas, questions, votes, and learning that never pauses. All its processes are measured every
ten seconds. Slopes are least-squares fits over the second half, when caches are warm.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import psutil

from bench._clients import CLIENTS, ClientLog, Load, recovered
from bench._live import SETTINGS, LiveRun, drill_arguments
from bench.votes import named
from core.store.writer import RunReader

LOOK_S = 10.0
ERRORS = ("hung", "restarted", "swap_hung", "proof_failed", "weighing_failed", "alert")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0)
    drill_arguments(parser, "runs/bench-soak")


def run(options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(soak(options, 0.5 if options.quick else options.minutes))


async def soak(options: argparse.Namespace, minutes: float) -> dict[str, Any]:
    live = LiveRun(options, SETTINGS, anew=True)
    async with httpx.AsyncClient(
        timeout=60, trust_env=False, limits=httpx.Limits(max_connections=4 * CLIENTS)
    ) as client:
        load = Load(live, client)
        await live.up()
        load.start()
        try:
            await recovered(load)
            rows = [row async for row in measurements(live, load, 60 * minutes)]
        finally:
            await load.stop()
            await live.stop()
    later = rows[len(rows) // 2 :]
    reader = RunReader(live.dir)
    events = [event.kind for event in reader.events(*ERRORS)]
    reader.close()
    parts = {title for row in later for title in row["by_title"]}
    return {
        "minutes": minutes,
        "rss_slope_mb_per_h": slope(later, lambda row: row["rss_mb"]),
        "fd_slope_per_h": slope(later, lambda row: row["fds"]),
        **errors(load.log, events),
        "requests": load.log.requests,
        "rss_mb": later[-1]["rss_mb"],
        "rss_slope_by_process": {
            title: slope(later, lambda row, title=title: row["by_title"].get(title, 0.0)) for title in sorted(parts)
        },
    }


def errors(log: ClientLog, events: list[str]) -> dict[str, Any]:
    """Nothing is killed, so that an attempt which failed is an error even if a retry made it good."""
    failed = dict(log.failed_attempts)
    return {"errors": sum(failed.values()) + len(events), "failed_attempts": failed, "error_events": events}


async def measurements(live: LiveRun, load: Load, seconds: float) -> AsyncIterator[dict[str, Any]]:
    started = time.monotonic()
    while (at_s := time.monotonic() - started) < seconds:
        await load.status()
        row = {"at_s": at_s, **measurement(live)}
        print(f"{at_s:.0f} s: {row['rss_mb']:.0f} MB, {row['fds']} descriptors", file=sys.stderr, flush=True)
        with (live.folder / "looks.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        yield row
        await asyncio.sleep(LOOK_S)


def measurement(live: LiveRun) -> dict[str, Any]:
    """RSS counts shared pages once per process, also those that forked processes share with their server: its slope
    tells more than its level. Proportional memory (PSS) is more exact, and 20 times as slow."""
    rss_mb, fds = 0.0, 0
    by_title: dict[str, float] = {}
    for process in live.family():
        try:
            title = named((process.cmdline() or [process.name()])[0])
            mine = process.memory_info().rss / 2**20
            fds += process.num_fds()
        except psutil.Error:
            continue
        rss_mb += mine
        by_title[title] = by_title.get(title, 0.0) + mine
    return {"rss_mb": rss_mb, "fds": fds, "by_title": by_title}


def slope(rows: list[dict[str, Any]], value: Any) -> float:
    """Growth per hour, by least squares."""
    hours = np.array([row["at_s"] for row in rows]) / 3600
    if len(hours) < 2:
        return float("nan")
    return round(float(np.polyfit(hours, np.array([value(row) for row in rows]), 1)[0]), 2)
