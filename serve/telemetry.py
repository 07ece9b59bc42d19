"""Metrics into Ray, and Ray's metrics of every node as one Prometheus page."""

import asyncio
from collections.abc import Mapping

import httpx
import ray
from ray.util import metrics as raymetrics

from core.metrics import Row

SCRAPE_TIMEOUT_S = 5.0


class RaySink:
    """A core.metrics sink that counts through ray.util.metrics; an instrument is made when it is first used."""

    def __init__(self) -> None:
        self._instruments: dict[str, raymetrics.Metric] = {}

    def record(self, row: Row, value: float, labels: Mapping[str, str]) -> None:
        if row.name not in self._instruments:
            self._instruments[row.name] = _instrument(row)
        match self._instruments[row.name]:
            case raymetrics.Counter() as counter:
                counter.inc(value, tags=dict(labels))
            case raymetrics.Gauge() as gauge:
                gauge.set(value, tags=dict(labels))
            case raymetrics.Histogram() as histogram:
                histogram.observe(value, tags=dict(labels))

    def flush(self, at: float, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


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
