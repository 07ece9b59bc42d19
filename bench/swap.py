"""How do users notice a change of weights? 100 swaps of each kind under 32 streaming requests.

It runs a real Serve application with one replica. Over HTTP 32 clients request streams of 100 tokens without end. A
versions actor in this file moves the serve slot, and the replica stages, proves and serves each version as in a run.
`pause_ms`: how long the engine paused. `max_gap_ms`: the longest time between two tokens of an answer. `ttft_ratio`:
median time to the first token during swaps, against the same load without swaps.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ray

from bench._record import Surroundings
from core.config import Config, load
from core.messages import BASE, Example, PolicyRef, Published, ReplicaReport, Slots, Window

CLIENTS = 32
TOKENS = 100
VERSIONS = 4
FRESH_S = 15.0
"""A replica without a report for this long counts as gone. Under 64 streams on two cores a report may be seconds late,
and a swap must not seem complete that a living replica has not made."""
NAMESPACE = "bench-swap"
CONFIGS = {"lora": "configs/tiny.yaml", "full": "configs/tiny-full.yaml"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swaps", type=int, default=100, help="at least; goes on until every client asked")
    parser.add_argument("--kind", choices=("lora", "full"), help="only this kind of weights, in this process")


def run(options: argparse.Namespace) -> dict[str, Any]:
    swaps = 6 if options.quick else options.swaps
    if options.kind is not None:
        return asyncio.run(measure(options.kind, swaps))
    return {kind: _in_own_process(kind, swaps) for kind in ("lora", "full")}


def _in_own_process(kind: str, swaps: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", "swap", "--kind", kind, "--swaps", str(swaps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {name: value for name, value in found.items() if name not in ("quick", *Surroundings.NAMES)}


class Versions:
    """Stands in for the versions actor: holds the desired state, which `serve` changes."""

    def __init__(self, base: Published) -> None:
        self._base = base
        self._slots = Slots(epoch=0)
        self._changed = asyncio.Condition()
        self._replicas: dict[str, tuple[int, float]] = {}
        self._failed: dict[str, str] = {}
        self._pauses_ms: list[float] = []

    async def base(self, wait_s: float) -> Published:
        return self._base

    async def desired(self, seen: int, wait_s: float) -> Slots:
        async with self._changed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait_for(lambda: self._slots.epoch > seen)
            except TimeoutError:
                pass
            return self._slots

    async def report(self, report: ReplicaReport) -> None:
        self._failed |= report.failed
        async with self._changed:
            before, _ = self._replicas.get(report.replica, (0, 0.0))
            if report.serving.version != before:
                self._pauses_ms.append(report.counters["pause_ms"])
            self._replicas[report.replica] = (report.serving.version, time.monotonic())
            self._changed.notify_all()

    async def trouble(self, replica: str, kind: str, why: str) -> None:
        self._failed[replica] = why

    async def invoke(self, part: str, method: str, *arguments: Any) -> Any:
        """Carries out calls as `actors.runtime.niceness.hosted` does. Here one object has all ports."""
        return await getattr(self, method)(*arguments)

    def serving(self) -> dict[str, int]:
        """The served version of each replica with a recent report."""
        now = time.monotonic()
        return {name: version for name, (version, at) in self._replicas.items() if now - at < FRESH_S}

    async def serve(self, published: Published) -> float:
        """Serve this version; returns the seconds until every replica serves it. The previous version is not wanted any
        more, so replicas unload it while its last requests run."""
        started = time.monotonic()
        async with self._changed:
            self._slots = Slots(
                epoch=self._slots.epoch + 1,
                serve=published.ref,
                explore=published.ref,
                loaded=(published,),
            )
            self._changed.notify_all()
        async with asyncio.timeout(60):
            while set(self.serving().values()) != {published.ref.version} and str(published.ref) not in self._failed:
                await self._next_report()
        return time.monotonic() - started

    async def _next_report(self) -> None:
        """Wait for a report, at most 0.5 s, because a replica without a recent report no longer counts."""
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._changed.wait()

    async def found(self) -> dict[str, Any]:
        return {"failed": self._failed, "pauses_ms": self._pauses_ms, "serving": self.serving()}


@dataclass
class Seen:
    """Times and failures that the clients measured."""

    ttft_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    failed: int = 0
    truncated: int = 0


async def measure(kind: str, swaps: int) -> dict[str, Any]:
    async with service(kind) as (actor, url, versions):
        return await _under_load(actor, url, versions, swaps)


@contextlib.asynccontextmanager
async def service(kind: str, *settings: str) -> AsyncIterator[tuple[Any, str, list[Published]]]:
    """Runs the policy service alone. Yields the `Versions` actor, the URL, and versions to serve."""
    from actors.runtime import local_cluster
    from serve.http.keys import Keys
    from serve.replica.app import deploy, open_gateway, undeploy
    from serve.replica.haproxy import free_ports

    with tempfile.TemporaryDirectory() as folder:
        config = load(CONFIGS[kind], [f"serve.port={free_ports(1)[0]}", *settings])
        with local_cluster.forks(config) as print_to:
            base, versions = await asyncio.to_thread(make_versions, config, Path(folder))
            if print_to is not None:
                print_to(Path(folder) / "engines.log")
            local_cluster.start(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
            try:
                actor = ray.remote(Versions).options(name="versions", num_cpus=0.02).remote(base)
                await asyncio.to_thread(open_gateway, config)
                await asyncio.to_thread(deploy, config, NAMESPACE, 0, {}, Keys())
                yield actor, f"http://{config.serve.host}:{config.serve.port}", versions
            finally:
                await asyncio.to_thread(undeploy)
                ray.shutdown()


async def _under_load(actor: Any, url: str, versions: list[Published], swaps: int) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client:
        stop = asyncio.Event()
        phases = {"calm": Seen(), "swapping": Seen()}
        now = ["warm"]
        clients = [asyncio.create_task(_stream_forever(client, stop, phases, now)) for _ in range(CLIENTS)]
        await actor.serve.remote(versions[0])
        await asyncio.sleep(5)
        now[0] = "calm"
        await asyncio.sleep(max(5.0, 0.2 * swaps))
        now[0] = "swapping"
        number = 0
        while number < swaps or (len(phases["swapping"].ttft_s) < CLIENTS and number < 20 * swaps):
            number += 1
            like = versions[number % VERSIONS]
            await actor.serve.remote(like.model_copy(update={"ref": PolicyRef(version=number + 1)}))
            await asyncio.sleep(0.3)
        now[0] = "after"
        stop.set()
        await asyncio.gather(*clients)
    found = await actor.found.remote()
    calm, swapping = phases["calm"], phases["swapping"]
    pauses = found["pauses_ms"]
    return {
        "swaps": number,
        "requests": len(swapping.gaps_s),
        "failed": swapping.failed + calm.failed,
        "truncated": swapping.truncated + calm.truncated,
        "unproven": len(found["failed"]),
        "pause_ms_p50": round(float(np.percentile(pauses, 50)), 1),
        "pause_ms_p99": round(float(np.percentile(pauses, 99)), 1),
        "max_gap_ms_p50": round(1e3 * float(np.percentile(swapping.gaps_s, 50)), 1),
        "max_gap_ms_p99": round(1e3 * float(np.percentile(swapping.gaps_s, 99)), 1),
        "max_gap_calm_ms_p99": round(1e3 * float(np.percentile(calm.gaps_s, 99)), 1),
        "ttft_ratio": round(statistics.median(swapping.ttft_s) / statistics.median(calm.ttft_s), 3),
        "ttft_calm_ms": round(1e3 * statistics.median(calm.ttft_s), 1),
    }


async def _stream_forever(
    client: httpx.AsyncClient, stop: asyncio.Event, phases: dict[str, Seen], now: list[str]
) -> None:
    body = {"model": "policy", "prompt": "Tom has 5 apples.\n", "max_tokens": TOKENS, "stream": True}
    body |= {"ignore_eos": True, "temperature": 1.0, "stream_options": {"include_usage": True}}
    while not stop.is_set():
        begun_in = now[0]
        started = last = time.monotonic()
        first_s, longest_s, finish, usage = None, 0.0, None, None
        try:
            async with client.stream("POST", "/v1/completions", json=body) as reply:
                reply.raise_for_status()
                async for line in reply.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line[6:])
                    usage = event.get("usage") or usage
                    at = time.monotonic()
                    if first_s is None:
                        first_s = at - started
                    else:
                        longest_s = max(longest_s, at - last)
                    last = at
                    for choice in event["choices"]:
                        finish = choice["finish_reason"] or finish
        except httpx.HTTPError:
            first_s, finish = None, "failed"
        lived_in = phases.get("swapping" if now[0] == "after" else now[0])  # swaps met it, whenever it began
        if lived_in is None:
            continue
        lived_in.failed += finish == "failed"
        if first_s is not None:
            if begun_in in phases:
                phases[begun_in].ttft_s.append(first_s)
            lived_in.gaps_s.append(longest_s)
            lived_in.truncated += finish != "length" or usage is None or usage["completion_tokens"] != TOKENS


def make_versions(config: Config, run_dir: Path) -> tuple[Published, list[Published]]:
    """The base and VERSIONS trained versions, each trained from the one before."""
    from core.codec import pack_ids
    from core.objectives import Sft
    from methods.data import prompts
    from methods.rows import continued
    from training.session import TrainingSession

    pool = prompts.read(config.prompts, 0)
    session = TrainingSession(run_dir, config.model, config.learning, 0, Sft(), [pool[i] for i in range(24)])
    base = session.open()
    made: list[Published] = []
    parent = base
    for number in range(1, VERSIONS + 1):
        examples = tuple(
            Example(
                id=f"{number}-{i}",
                group_id=f"{number}-{i}",
                policy=BASE,
                method="bench",
                render_id=session.render_id,
                rows=(continued(pack_ids([1, 10 + i, 20 + number]), pack_ids([30 + i, 40 + number, 2])),),
            )
            for i in range(64)
        )
        window = Window(number=number, group_ids=(), examples=examples)
        parent = session.make(window, PolicyRef(version=number), parent, lambda done, steps: None)
        made.append(parent)
    return base, made
