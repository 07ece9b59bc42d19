import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import ConfigError
from core.metrics import ROWS, JsonlSink, MemorySink, Metrics, TensorBoardSink, WandbSink, series


def test_every_row_is_declared_once_in_the_shape_that_prometheus_expects() -> None:
    from core.metrics import _TABLE  # pyright: ignore[reportPrivateUsage]

    assert len(ROWS) == len(_TABLE)
    for row in ROWS.values():
        assert row.full_name == f"ratchet_{row.name}" and row.help
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert bool(row.bounds) == (row.kind == "histogram") and sorted(row.bounds) == list(row.bounds)


def test_counts_add_up_and_reach_every_sink() -> None:
    sinks = [MemorySink(), MemorySink()]
    metrics = Metrics(sinks, ManualClock(7.0))
    metrics.count("tokens_total", 5, purpose="user")
    metrics.count("tokens_total", 2, purpose="user")
    metrics.count("tokens_total", 1, purpose="gate")
    metrics.set("served_version", 3)
    metrics.set("served_version", 2)
    metrics.observe("vote_share", 0.5)
    metrics.observe("vote_share", 0.75)
    metrics.close()
    expected = {
        "tokens_total{purpose=user}": 7,
        "tokens_total{purpose=gate}": 1,
        "served_version": 2,
        "vote_share_count": 2,
        "vote_share_sum": 1.25,
    }
    assert metrics.values() == expected
    for sink in sinks:
        assert sink.snapshots == [(7.0, expected)] and sink.closed
        assert sink.records[1] == ("tokens_total", 2, {"purpose": "user"}) and len(sink.records) == 7


def test_a_count_of_zero_reaches_no_sink() -> None:
    sink = MemorySink()
    metrics = Metrics([sink])
    metrics.count("probes_total", 0)
    assert sink.records == [] and metrics.values() == {}


def test_a_counter_begins_at_zero_with_every_value_of_its_labels() -> None:
    sink = MemorySink()
    metrics = Metrics([sink])
    metrics.count("rollbacks_total", 2, by="hand")
    metrics.begin("rollbacks_total", "probes_total")
    metrics.begin("events_total", kind="hung")
    assert metrics.values() == {
        "rollbacks_total{by=watch}": 0,
        "rollbacks_total{by=hand}": 2,
        "rollbacks_total{by=replicas}": 0,
        "probes_total": 0,
        "events_total{kind=hung}": 0,
    }
    assert sink.records[1:] == [
        *(("rollbacks_total", 0, {"by": by}) for by in ("watch", "hand", "replicas")),
        ("probes_total", 0, {}),
        ("events_total", 0, {"kind": "hung"}),
    ]
    with pytest.raises(ValueError, match="is a gauge, not a counter"):
        metrics.begin("served_version")
    with pytest.raises(ValueError, match="did you mean probes_total"):
        metrics.begin("probe_total")


def test_what_is_not_in_the_table_is_refused_by_name() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="did you mean tokens_total"):
        metrics.count("token_total", purpose="user")
    with pytest.raises(ValueError, match=r"labels \['purpose'\], got \[\]"):
        metrics.count("tokens_total")
    with pytest.raises(ValueError, match="no purpose='lunch'; it is one of user"):
        metrics.count("tokens_total", purpose="lunch")
    with pytest.raises(ValueError, match="is a gauge, not a counter"):
        metrics.count("served_version")
    with pytest.raises(ValueError, match="cannot rise by -1"):
        metrics.count("probes_total", -1)
    with pytest.raises(ValueError, match="cannot rise by nan"):
        metrics.count("probes_total", float("nan"))
    metrics.count("events_total", kind="anything at all")


def test_the_jsonl_sink_writes_one_valid_line_a_snapshot_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "run" / "metrics.jsonl", ManualClock(1.0)
    metrics = Metrics([JsonlSink(path)], clock)
    metrics.set("train_loss", float("nan"))
    metrics.flush()
    clock.advance(2)
    metrics.set("train_loss", 0.5)
    metrics.flush()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"at": 1.0, "train_loss": None}, {"at": 3.0, "train_loss": 0.5}]
    metrics.close()
    Metrics([JsonlSink(path)], clock).close()
    assert len(path.read_text().splitlines()) == 4


def test_threads_lose_no_count() -> None:
    metrics = Metrics()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: metrics.count("candidates_total"), range(4000)))
    assert metrics.values()["candidates_total"] == 4000


def test_a_series_has_one_name_whatever_the_order_of_its_labels() -> None:
    assert series("x", {"b": "1", "a": "2"}) == series("x", {"a": "2", "b": "1"}) == "x{a=2,b=1}"


@pytest.mark.parametrize(("kind", "package"), [(TensorBoardSink, "tensorboard"), (WandbSink, "wandb")])
def test_a_sink_whose_package_is_missing_says_how_to_get_it(
    kind: type, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    arguments = (tmp_path,) if kind is TensorBoardSink else (tmp_path, {})
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        kind(*arguments)
