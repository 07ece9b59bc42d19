"""Metrics into Ray, and Ray's metrics of every node as one Prometheus page."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import ray
from ray.util import metrics as raymetrics

from core.metrics import Row, series

SCRAPE_TIMEOUT_S = 5.0
RETELL_S = 4.0
"""Well within the ten seconds after which Ray's workers tell, and forget, their gauges."""


class RaySink:
    """A core.metrics sink that counts through ray.util.metrics; an instrument is made when it is first used.

    A Ray worker forgets a gauge as soon as it has exported it (Ray 2.60: `CollectGaugeMetricValues` clears, and its
    agent drops what was not told again within two intervals), so what is seldom set would be seen by no scrape. Each
    gauge is therefore told again every `retell_s`, by a thread, because not every process that counts runs a loop."""

    def __init__(self, make: Callable[[Row], raymetrics.Metric] | None = None, retell_s: float = RETELL_S) -> None:
        self._make = make or _instrument
        self._retell_s = retell_s
        self._instruments: dict[str, Any] = {}
        self._gauges: dict[str, tuple[Row, float, dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._retelling: threading.Thread | None = None

    def __reduce__(self) -> tuple[type["RaySink"], tuple[()]]:
        """Travels to the process that will count."""
        return RaySink, ()

    def record(self, row: Row, value: float, labels: Mapping[str, str]) -> None:
        with self._lock:
            if row.name not in self._instruments:
                self._instruments[row.name] = self._make(row)
            if row.kind == "gauge":
                self._gauges[series(row.name, labels)] = (row, value, dict(labels))
                self._keep_telling()
            self._tell(row, value, dict(labels))

    def flush(self, at: float, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        self._closed.set()
        if self._retelling is not None:
            self._retelling.join(timeout=2 * self._retell_s)

    def _keep_telling(self) -> None:
        if self._retelling is None:
            self._retelling = threading.Thread(target=self._retell_for_ever, name="ratchet-gauges", daemon=True)
            self._retelling.start()

    def _retell_for_ever(self) -> None:
        while not self._closed.wait(self._retell_s):
            with self._lock:
                for row, value, labels in self._gauges.values():
                    self._tell(row, value, labels)

    def _tell(self, row: Row, value: float, labels: dict[str, str]) -> None:
        instrument = self._instruments[row.name]
        if row.kind == "gauge":
            instrument.set(value, tags=labels)
        elif row.kind == "histogram":
            instrument.observe(value, tags=labels)
        elif value > 0:
            instrument.inc(value, tags=labels)
        else:
            instrument._record(0.0, tags=labels)  # `inc` refuses the 0 that a counter begins at


def _instrument(row: Row) -> raymetrics.Metric:
    tags = tuple(row.labels)
    if row.kind == "counter":
        return raymetrics.Counter(row.full_name, row.help, tags)
    if row.kind == "gauge":
        return raymetrics.Gauge(row.full_name, row.help, tags)
    return raymetrics.Histogram(row.full_name, row.help, list(row.bounds), tags)


async def scrape() -> str:
    """What the metrics agent of every living node exports, one after the other, each family's header once."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["MetricsExportPort"]]
    async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S, trust_env=False) as client:
        pages = await asyncio.gather(
            *(client.get(f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics") for n in nodes),
            return_exceptions=True,
        )
    return merge([page.text for page in pages if isinstance(page, httpx.Response) and page.is_success])


def merge(pages: list[str]) -> str:
    """One exposition out of several: `# HELP` and `# TYPE` once a family, its samples together."""
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
