"""How does the pipeline scale: samples per second by collectors and replicas, time to prove a version on 64 replicas?

Engines are simulated (`bench/_simulated.py`): a replica has 64 seats and an answer takes `--latency` seconds. So a
replica gives at most 64 / latency samples per second, and a collector has `collect.in_flight` prompts of 8 samples in
flight. Everything else is real: leases, explore and vote, delivery, SQLite with a sync before each acknowledgement,
windows, versions. A sample is 1 kB of text and token ids, and counts when it is on disk.

    by_collectors     1, 4, 16, 64 collectors, 16 replicas     samples_per_s, processors by part, memory_mb
    by_replicas       1, 4, 16 replicas, 16 collectors         the same
    by_serve          4 replicas and 4 collectors, with the replicas as plain actors and behind Ray Serve
    pipeline          2 engines without latency and 2 collectors with 64 prompts in flight each, which suits two
                      cores: the throughput of the pipeline itself on this machine
    version_live_on_64_s   from `published` until all of 64 replicas have proven the version and it is served

The floor: `pipeline` at least 5,000 samples/s on two cores.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import ray

from actors.runtime.ports import LearningPort
from actors.runtime.rpc import remote
from actors.runtime.supervisor import Supervisor
from bench._simulated import SimulatedSystem
from core.config import Config, load
from core.store.writer import RunReader

SETTINGS = (
    "gate.enabled=false",
    "report.questions=null",
    "learning.plateau=null",
    "learning.groups_per_window=1024",
    "learning.max_lag=7",
    "run.retention.windows=1",
    "run.retention.versions=2",
)
WARM_S = 3.0
Point = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency", type=float, default=0.25, help="seconds per prompt in a simulated engine")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-scale"))
    parser.add_argument("--only", choices=("collectors", "replicas", "serve", "pipeline", "live"))
    parser.add_argument("--at", type=int, help="measure only this number of collectors or replicas")


def run(options: argparse.Namespace) -> dict[str, Any]:
    collectors, replicas, many = ((1, 2), (1, 2), 4) if options.quick else ((1, 4, 16, 64), (1, 4, 16), 64)
    seconds, latency = (3.0 if options.quick else options.seconds), options.latency
    most, some = replicas[-1], collectors[-2]
    if options.at is not None:
        collectors, replicas = (tuple(n for n in each if n == options.at) for each in (collectors, replicas))

    def point(name: str, c: int, r: int, latency: float, **more: Any) -> Point:
        found = asyncio.run(measure(options.out / name, c, r, latency, seconds, **more))
        print(f"{name}: {found}", file=sys.stderr, flush=True)
        return found

    wanted = {
        "collectors": lambda: {"by_collectors": {c: point(f"c{c}", c, most, latency) for c in collectors}},
        "replicas": lambda: {"by_replicas": {r: point(f"r{r}", some, r, latency) for r in replicas}},
        "serve": lambda: {
            "by_serve": {
                "plain": point("plain", 4, 4, latency),
                "serve": point("serve", 4, 4, latency, by_serve=True),
            }
        },
        "pipeline": lambda: {"pipeline": point("pipeline", 2, 2, 0.0, in_flight=64)},
        "live": lambda: live(options.out / "live", many, 2 if options.quick else 6),
    }
    ray.init(
        "local",
        include_dashboard=False,
        log_to_driver=False,
        num_cpus=256,  # actors here reserve hundredths of a CPU
        object_store_memory=200 * 2**20,
        _system_config={"task_events_report_interval_ms": 0},
    )
    try:
        found: dict[str, Any] = {}
        for name, measured in wanted.items():
            if options.only in (None, name):
                found |= measured()
    finally:
        ray.shutdown()
    if "pipeline" in found:
        found["samples_per_s"] = found["pipeline"]["samples_per_s"]
    return found


def live(folder: Path, replicas: int, versions: int) -> dict[str, Any]:
    took_s = sorted(asyncio.run(_live(folder, replicas, versions)))
    told = {"replicas": replicas, "median": round(statistics.median(took_s), 2), "max": round(took_s[-1], 2)}
    return {"version_live_on_64_s" if replicas == 64 else "version_live_s": {**told, "versions": len(took_s)}}


def simulated(
    folder: Path, collectors: int, replicas: int, latency_s: float, in_flight: int = 24, **more: Any
) -> SimulatedSystem:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    collecting = (f"collect.collectors={collectors}", f"collect.in_flight={in_flight}")
    parts = (*collecting, f"serve.replicas={replicas}", f"run.dir={folder}")
    config: Config = load("configs/tiny.yaml", [*SETTINGS, *parts])
    return SimulatedSystem(config, folder, latency_s, **more)


async def measure(folder: Path, collectors: int, replicas: int, latency_s: float, seconds: float, **more: Any) -> Point:
    """Throughput, processors by part and memory. `more`: further arguments of `simulated`."""
    system = simulated(folder, collectors, replicas, latency_s, **more)
    supervisor = Supervisor(system, 600, 60, 60)
    try:
        await supervisor.start()
        await supervisor.learn()
        await asyncio.sleep(WARM_S)
        before, cpu, at = await delivered(system), processor_s(), time.monotonic()
        await asyncio.sleep(seconds)
        after, spent, took_s = await delivered(system), processor_s(), time.monotonic() - at
        memory_mb = round(sum(p.memory_full_info().pss for p in family()) / 2**20)
    finally:
        await supervisor.stop()
    samples = (after - before) * system.config.method.sampler.n
    parts = {title: round((spent[title] - cpu.get(title, 0.0)) / took_s, 2) for title in spent}
    return {
        "samples_per_s": round(samples / took_s, 1),
        "processors": {title: share for title, share in sorted(parts.items()) if share >= 0.02},
        "memory_mb": memory_mb,
    }


async def _live(folder: Path, replicas: int, versions: int) -> list[float]:
    """For each of the first versions, the seconds from published to proven by every replica."""
    system = simulated(folder, 2, replicas, 0.0)
    supervisor = Supervisor(system, 600, 60, 60)
    try:
        await supervisor.start()
        await supervisor.learn()
        while True:
            with closing(RunReader(folder)) as reader:
                at = {
                    kind: {event.detail["version"]: event.at for event in reader.events(kind)}
                    for kind in ("published", "proven")
                }
            if len(at["proven"]) >= versions:
                return [at["proven"][version] - at["published"][version] for version in sorted(at["proven"])]
            await asyncio.sleep(1.0)
    finally:
        await supervisor.stop()


async def delivered(system: SimulatedSystem) -> int:
    """Prompts whose samples are on disk."""
    status = await remote(LearningPort, "buffer", system.namespace, part="learning").status()
    return status["accepted"] + status["filtered"]


def processor_s() -> dict[str, float]:
    """CPU-seconds so far of this process and its descendants, by title."""
    spent: dict[str, float] = defaultdict(float)
    for process in family():
        try:
            title = (process.cmdline() or [process.name()])[0].rsplit("/", 1)[-1].split(".")[0]
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent[title] += times.user + times.system
    return spent


def family() -> list[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]
