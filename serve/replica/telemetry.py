"""Sends metrics to Ray, and joins Ray's metrics of all nodes into one Prometheus page."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import ray
from ray.util import metrics as raymetrics

from core.metrics import Metric, series

SCRAPE_TIMEOUT_S = 5.0
REPEAT_S = 4.0
"""Well below ten seconds, after which a Ray worker exports its gauges and forgets them."""


class RaySink:
    """A core.metrics sink over ray.util.metrics; makes each instrument on first use.

    A Ray worker forgets a gauge after it has exported it (Ray 2.60: `CollectGaugeMetricValues` clears it, and the agent
    drops a gauge that is missing for two intervals), so a gauge that is seldom set would be missing from most scrapes.
    A thread therefore sets every gauge again each `repeat_s`; a thread, because not every process runs a loop."""

    def __init__(self, make: Callable[[Metric], raymetrics.Metric] | None = None, repeat_s: float = REPEAT_S) -> None:
        self._make = make or _instrument
        self._repeat_s = repeat_s
        self._instruments: dict[str, Any] = {}
        self._gauges: dict[str, tuple[Metric, float, dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._repeating: threading.Thread | None = None

    def __reduce__(self) -> tuple[type["RaySink"], tuple[()]]:
        """Pickles as a new sink: instruments belong to the process that counts."""
        return RaySink, ()

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            if row.name not in self._instruments:
                self._instruments[row.name] = self._make(row)
            if row.kind == "gauge":
                self._gauges[series(row.name, labels)] = (row, value, dict(labels))
                self._start_repeating()
            self._set(row, value, dict(labels))

    def flush(self, at: float, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        self._closed.set()
        if self._repeating is not None:
            self._repeating.join(timeout=2 * self._repeat_s)

    def _start_repeating(self) -> None:
        if self._repeating is None:
            self._repeating = threading.Thread(target=self._repeat_gauges, name="ratchet-gauges", daemon=True)
            self._repeating.start()

    def _repeat_gauges(self) -> None:
        while not self._closed.wait(self._repeat_s):
            with self._lock:
                for row, value, labels in self._gauges.values():
                    self._set(row, value, labels)

    def _set(self, row: Metric, value: float, labels: dict[str, str]) -> None:
        instrument = self._instruments[row.name]
        if row.kind == "gauge":
            instrument.set(value, tags=labels)
        elif row.kind == "histogram":
            instrument.observe(value, tags=labels)
        elif value > 0:
            instrument.inc(value, tags=labels)
        else:
            instrument._record(0.0, tags=labels)  # `inc` refuses 0, at which a counter begins


def _instrument(row: Metric) -> raymetrics.Metric:
    tags = tuple(row.labels)
    if row.kind == "counter":
        return raymetrics.Counter(row.full_name, row.help, tags)
    if row.kind == "gauge":
        return raymetrics.Gauge(row.full_name, row.help, tags)
    return raymetrics.Histogram(row.full_name, row.help, list(row.bounds), tags)


async def scrape() -> str:
    """The metrics of all live nodes' agents as one page, without nodes that do not answer in SCRAPE_TIMEOUT_S."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"]]
    async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S, trust_env=False) as client:
        pages = await asyncio.gather(
            *(client.get(f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics") for n in nodes),
            return_exceptions=True,
        )
    return merge([page.text for page in pages if isinstance(page, httpx.Response) and page.is_success])


def merge(pages: list[str]) -> str:
    """One Prometheus page from several: each family once, its samples together below one `# HELP` and `# TYPE`."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                known = headers.setdefault(family, [])
                kind = line[:7]
                if not any(header.startswith(kind) for header in known):
                    known.append(line)
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(line)
    return "".join("\n".join([*headers.get(f, []), *lines]) + "\n" for f, lines in samples.items())
