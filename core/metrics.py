"""All metrics: ROWS declares each of them once, `Metrics` counts, sinks export.

    metrics = Metrics([JsonlSink(path)], clock)
    metrics.count("tokens_total", 512, purpose="explore")
    metrics.flush()

Names here lack the prefix `ratchet_` of the exported names. An unknown name, label or label value is a ValueError at
once, not a second time series.
"""

import difflib
import itertools
import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from core.clock import Clock, SystemClock
from core.errors import ConfigError

PREFIX = "ratchet_"
Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Label -> its allowed values; empty: any."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def full_name(self) -> str:
        return PREFIX + self.name


_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
_SWAP_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_FIRST_TOKEN_S = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)

_TABLE = (
    Metric(
        "tokens_total",
        "counter",
        "Tokens generated, by purpose",
        {"purpose": ("user", "explore", "judge", "gate", "report", "proof")},
    ),
    Metric("candidates_total", "counter", "Continuations sampled to learn from"),
    Metric(
        "prompts_total",
        "counter",
        "Leased prompts, by result",
        {"result": ("accepted", "filtered", "failed", "expired", "duplicate", "stale")},
    ),
    Metric("votes_total", "counter", "Votes cast, by kind of voter", {"by": ("sample", "person", "verifier")}),
    Metric("feedback_total", "counter", "Feedback on answers, stored durably"),
    Metric("responses_total", "counter", "Answers to users that were stored, so that they can be voted on"),
    Metric("resettled_total", "counter", "Explored prompts settled again after votes of people"),
    Metric("vote_share", "histogram", "Winner's share of a ballot", bounds=_TENTHS),
    Metric("buffer_groups", "gauge", "Accepted groups that no window has drawn yet"),
    Metric("buffer_examples", "gauge", "Examples in the replay buffer"),
    Metric("outstanding_leases", "gauge", "Prompts leased and not yet delivered"),
    Metric("learning_paused", "gauge", "1 while learning is paused (nothing is leased or drawn); else 0"),
    Metric("windows_drawn_total", "counter", "Windows handed to the trainer"),
    Metric("tuned", "gauge", "What the method's tuner has set, by setting", {"setting": ()}),
    Metric("lag_versions", "gauge", "Staleness of the oldest new group in the newest window, in versions"),
    Metric("train_seconds_total", "counter", "Time spent training"),
    Metric("train_examples_total", "counter", "Examples trained on"),
    Metric("train_loss", "gauge", "Mean loss of the newest trained version"),
    Metric("mismatch_kl", "gauge", "Divergence of engine and trainer with the same weights, nats per sampled token"),
    Metric("versions_published_total", "counter", "Versions written by the trainer"),
    Metric("verdicts_total", "counter", "Candidates decided by the gate", {"verdict": ("promote", "reject", "hold")}),
    Metric("rollbacks_total", "counter", "Versions that are no longer served", {"by": ("watch", "hand", "replicas")}),
    Metric("learning_rate_scale", "gauge", "Factor on the learning rate; below 1 after rejections in a row"),
    Metric("rejections_in_a_row", "gauge", "Candidates rejected or rolled back since the last promotion or resume"),
    Metric("probes_total", "counter", "Probe questions asked of a candidate"),
    Metric("anchor_agreement", "gauge", "Share of anchors with the same answer", {"who": ("candidate", "champion")}),
    Metric("accuracy_ratio", "gauge", "Share of the report's questions that the newest reported version got right"),
    Metric("report_flexible_ratio", "gauge", "The same if the last answer of a text counts in whatever form"),
    Metric("report_entropy_nats", "gauge", "Entropy of the newest reported version's answers across questions, nats"),
    Metric("report_distinct_2_ratio", "gauge", "Distinct pairs of words in the newest reported version's texts"),
    Metric("report_sampled_ratio", "gauge", "Share of right samples of the newest reported version (report.sampled)"),
    Metric("report_pass_n_ratio", "gauge", "Share of questions with at least one right sample of that version"),
    Metric("report_gap", "gauge", "Generation-verification gap of that version, with the vote as verifier"),
    Metric("other_task_ratio", "gauge", "Share of right answers on a task that is not learned", {"task": ()}),
    Metric("swaps_total", "counter", "Swaps of weights in a replica", {"result": ("ok", "failed")}),
    Metric("swap_seconds", "histogram", "Time from the order to load a version until its proof", bounds=_SWAP_S),
    Metric("arrival_ratio", "gauge", "Part of the newest proven version's step that the engine's precision has left"),
    Metric("served_version", "gauge", "Version that is served to users"),
    Metric("explore_version", "gauge", "Version that collectors sample from"),
    Metric("users_in_flight", "gauge", "User requests in flight"),
    Metric("background_in_flight", "gauge", "Learning requests in flight"),
    Metric("user_requests_total", "counter", "User requests answered, by status", {"status": ("2xx", "4xx", "5xx")}),
    Metric(
        "first_token_seconds",
        "histogram",
        "Time to the first token of streamed answers to users, serving modes excluded",
        bounds=_FIRST_TOKEN_S,
    ),
    Metric("disk_free_bytes", "gauge", "Free bytes on the disk of the run directory"),
    Metric("disk_full", "gauge", "1 while the store cannot write because the disk is full; else 0"),
    Metric("events_total", "counter", "Events in the run's history", {"kind": ()}),
)
ROWS: Mapping[str, Metric] = {row.name: row for row in _TABLE}


class Sink(Protocol):
    """Exports counts. A sink may use each record, the snapshots, or both."""

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        """One change: increment of a counter (0: it begins), value of a gauge, or observation of a histogram."""
        ...

    def flush(self, at: float, values: Mapping[str, float]) -> None:
        """All totals so far, by the name and labels of `series`."""
        ...

    def close(self) -> None: ...


class Metrics:
    """Counts the metrics of the table, from any thread. One per process, passed as an argument."""

    def __init__(self, sinks: Sequence[Sink] = (), clock: Clock | None = None) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock or SystemClock()
        self._values: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Metrics"], tuple[Any, ...]]:
        """Pickles the sinks and the clock for another process; counts stay in this one."""
        return Metrics, (self._sinks, self._clock)

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Raise a counter; by 0 does nothing."""
        row = _row(name, "counter", labels)
        if not n >= 0:
            raise ValueError(f"counter {name} cannot rise by {n}; a value that falls is a gauge")
        if n > 0:
            with self._lock:
                self._values[series(name, labels)] += n
                self._record(row, n, labels)

    def begin(self, *names: str, **labels: str) -> None:
        """Export counters at 0, for every value of the labels that are not given.

        A series that starts at 1 hides its first rise from Prometheus' `increase()`, and a dashboard cannot tell 0 from
        a wrong name. The process that counts calls this when it starts."""
        for name in names:
            for complete in _label_sets(name, labels):
                row = _row(name, "counter", complete)
                with self._lock:
                    self._values[series(name, complete)] += 0
                    self._record(row, 0, complete)

    def set(self, name: str, value: float, **labels: str) -> None:
        row = _row(name, "gauge", labels)
        with self._lock:
            self._values[series(name, labels)] = value
            self._record(row, value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a histogram; a snapshot holds the count and the sum."""
        row = _row(name, "histogram", labels)
        with self._lock:
            self._values[series(name + "_count", labels)] += 1
            self._values[series(name + "_sum", labels)] += value
            self._record(row, value, labels)

    def values(self) -> dict[str, float]:
        with self._lock:
            return dict(self._values)

    def flush(self) -> None:
        """Hand one snapshot to every sink."""
        at, values = self._clock.now(), self.values()
        for sink in self._sinks:
            sink.flush(at, values)

    def close(self) -> None:
        """Flush, then close every sink."""
        self.flush()
        for sink in self._sinks:
            sink.close()

    def _record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        for sink in self._sinks:
            sink.record(row, value, labels)


def series(name: str, labels: Mapping[str, str]) -> str:
    """`tokens_total{purpose=user}`: one time series as a flat name, as in metrics.jsonl."""
    inner = ",".join(f"{label}={labels[label]}" for label in sorted(labels))
    return f"{name}{{{inner}}}" if inner else name


def _label_sets(name: str, given: Mapping[str, str]) -> list[dict[str, str]]:
    """The given labels, combined with every value of the others."""
    known = ROWS[name].labels.items() if name in ROWS else ()
    free = [[(label, value) for value in values] for label, values in known if label not in given]
    return [{**given, **dict(chosen)} for chosen in itertools.product(*free)]


def _row(name: str, kind: Kind, labels: Mapping[str, str]) -> Metric:
    row = ROWS.get(name)
    if row is None:
        nearest = difflib.get_close_matches(name, list(ROWS), n=1, cutoff=0.0)[0]
        raise ValueError(f"no metric {name!r} in core/metrics.py; did you mean {nearest}?")
    if row.kind != kind:
        raise ValueError(f"{name} is a {row.kind}, not a {kind}")
    if labels.keys() != row.labels.keys():
        raise ValueError(f"{name} has the labels {sorted(row.labels)}, got {sorted(labels)}")
    for label, value in labels.items():
        if row.labels[label] and value not in row.labels[label]:
            raise ValueError(f"{name} has no {label}={value!r}; it is one of {', '.join(row.labels[label])}")
    return row


class MemorySink:
    """Keeps all records and snapshots, for tests."""

    def __init__(self) -> None:
        self.records: list[tuple[str, float, dict[str, str]]] = []
        self.snapshots: list[tuple[float, dict[str, float]]] = []
        self.closed = False

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        self.records.append((row.name, value, dict(labels)))

    def flush(self, at: float, values: Mapping[str, float]) -> None:
        self.snapshots.append((at, dict(values)))

    def close(self) -> None:
        self.closed = True


class JsonlSink:
    """One line per snapshot: `{"at": seconds, "tokens_total{purpose=user}": 12}`. A value that is not finite is null.

    A second run on the same file appends. At `limit_bytes` the file is moved to `.1` and replaces the previous one. If
    the disk is full, the whole line is left out."""

    def __init__(self, path: Path, limit_bytes: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit_bytes = limit_bytes
        self._file = path.open("ab", buffering=0)

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        pass

    def flush(self, at: float, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"at": at, **finite}).encode() + b"\n"
        before = self._file.seek(0, os.SEEK_END)
        if self._limit_bytes is not None and 0 < before > self._limit_bytes - len(line):
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file, before = self._path.open("ab", buffering=0), 0
        with suppress(OSError):
            if self._file.write(line) < len(line):
                self._file.truncate(before)

    def close(self) -> None:
        self._file.close()


class TensorBoardSink:
    """Writes snapshots as scalars for TensorBoard, with its own package; needs no torch."""

    def __init__(self, folder: Path) -> None:
        writers = _optional("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._event: Any = _optional("tensorboard.compat.proto.event_pb2", "tensorboard").Event
        self._summary: Any = _optional("tensorboard.compat.proto.summary_pb2", "tensorboard").Summary
        self._writer: Any = writers.EventFileWriter(str(folder))
        self._step = 0

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        pass

    def flush(self, at: float, values: Mapping[str, float]) -> None:
        scalars = [self._summary.Value(tag=PREFIX + name, simple_value=value) for name, value in values.items()]
        self._writer.add_event(self._event(wall_time=at, step=self._step, summary=self._summary(value=scalars)))
        self._writer.flush()
        self._step += 1

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """Logs snapshots to a wandb run. wandb's environment variables say where, and whether at all."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb = _optional("wandb", "wandb")
        self._run: Any = wandb.init(project="ratchet", dir=str(folder), config=dict(settings))

    def record(self, row: Metric, value: float, labels: Mapping[str, str]) -> None:
        pass

    def flush(self, at: float, values: Mapping[str, float]) -> None:
        self._run.log({**{PREFIX + name: value for name, value in values.items()}, "at": at})

    def close(self) -> None:
        self._run.finish()


def _optional(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"run.sinks names {package}, which cannot be imported ({error}); "
            f"pip install {package}, or remove it from run.sinks"
        ) from None
