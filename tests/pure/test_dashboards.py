"""dashboards/: what is asked for exists, every alert is tested and explained, and promtool agrees."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from actors.storage.store import TROUBLE
from core.metrics import ROWS
from tests.panels import FOLDER, alerts, everything, selectors

OPERATIONS = FOLDER.parent / "docs" / "operations.md"
OTHERS = {
    "up",
    "ALERTS",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_deployment_replica_healthy",
    "ray_vllm_time_to_first_token_seconds_bucket",
    "ray_vllm_request_queue_time_seconds_bucket",
    "ray_vllm_num_requests_waiting",
    "ray_vllm_kv_cache_usage_perc",
    "ray_node_cpu_utilization",
    "ray_node_mem_available",
    "ray_node_mem_total",
    "ray_component_rss_bytes",
}
"""What Prometheus, Serve, vLLM and Ray export; tests/real/people/test_prometheus.py finds each in a running system."""
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")


def exported() -> set[str]:
    """Names of our own metrics as they stand on /metrics."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {f"ray_{row.full_name}{suffix}" for row in ROWS.values() for suffix in suffixes.get(row.kind, ("",))}


def test_selectors_are_read_out_of_an_expression() -> None:
    asked = 'sum by (le) (rate(a_bucket{x=~"b(c)|d"}[5m] offset 1d)) > 0.5 * max(e) and on () f or 1e3 * vector(1) < g'
    assert selectors(asked) == ['a_bucket{x=~"b(c)|d"}', "e", "f", "g"]


def test_every_metric_in_every_panel_and_alert_exists() -> None:
    known = exported() | OTHERS
    asked = {selector.partition("{")[0]: where for where, ask in everything() for selector in selectors(ask)}
    assert not {name: where for name, where in asked.items() if name not in known}
    assert set(asked) >= OTHERS, "left over in the list"


def test_labels_in_panels_and_alerts_take_values_that_are_counted() -> None:
    for where, ask in everything():
        for selector in selectors(ask):
            name, _, matchers = selector.removeprefix("ray_ratchet_").partition("{")
            for label, sign, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                if (row := ROWS.get(name.removesuffix("_bucket"))) is not None and label != "le":
                    counted = row.labels[label] or TROUBLE
                    assert set(value.split("|") if sign == "=~" else [value]) <= set(counted), (where, selector)


def test_every_alert_fires_in_a_test_and_stays_silent_in_another() -> None:
    tests = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fires: dict[str, bool] = {}
    for test in tests:
        named = {
            re.sub(r'.*alertname="(\w+)".*', r"\1", sample["labels"])
            for check in test["promql_expr_test"]
            for sample in check["exp_samples"]
        }
        silent = any(not check["exp_samples"] for check in test["promql_expr_test"])
        fires |= {name: fires.get(name, False) or silent for name in named}
    assert fires == dict.fromkeys(alerts(), True), "each has to fire, and not to fire before that"


def test_every_alert_is_explained() -> None:
    section = OPERATIONS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^### (\w+)$", section, re.MULTILINE)
    assert sorted(explained) == sorted(alerts())


def test_the_dashboard_is_whole() -> None:
    board = json.loads((FOLDER / "grafana" / "ratchet.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Service", "Learning", "Gate", "Machine"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)


def test_nothing_is_open_to_others_and_no_password_is_in_the_file() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    about = services["grafana"]["environment"]
    assert about["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert about["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert all(re.search(r":v?\d+\.\d+\.\d+$", service["image"]) for service in services.values())


@promtool
@pytest.mark.parametrize("check", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"])
def test_promtool_agrees(check: str) -> None:
    done = subprocess.run(["promtool", *check.split()], cwd=FOLDER, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
