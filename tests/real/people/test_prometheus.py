"""Debian's Prometheus scrapes a run with the shipped files: every metric of every panel and alert has data."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.panels import FOLDER, alerts, everything, selectors
from tests.real.conftest import Run
from tests.real.people.conftest import QUESTION, ROOT, SCRAPER

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: prometheus)"),
]
ONLY_WHILE_FIRING = "ALERTS"


def used(run: Run) -> None:
    """Send questions, streamed and not, and feedback on the answers; then wait for the first verdict."""
    with openai.OpenAI(base_url=f"{run.url}/v1", api_key=ROOT, max_retries=0) as client:
        for streamed in (True, False, True):
            asked: Any = {"model": "policy", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60}
            if streamed:
                assert list(client.chat.completions.create(**asked, stream=True))
                continue
            said = {"response_id": client.chat.completions.create(**asked).id, "binary": True}
            told(f"{run.url}/v1/feedback", said)
    deadline = time.monotonic() + 420
    while not told(f"{run.url}/status")["versions"]["decided"]:
        assert time.monotonic() < deadline, run.log.read_text()[-3000:]
        time.sleep(2)


def told(url: str, body: Any = None) -> Any:
    method, headers = "GET" if body is None else "POST", {"authorization": f"Bearer {ROOT}"}
    return httpx.request(method, url, headers=headers, json=body, timeout=60, trust_env=False).raise_for_status().json()


@contextmanager
def prometheus(run: Run, folder: Path) -> Iterator[str]:
    """Starts Prometheus with the shipped configuration, except target, key and interval; yields its URL."""
    shipped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = shipped["scrape_configs"]
    job["static_configs"][0]["targets"] = [run.url.removeprefix("http://")]
    job["authorization"] = {"credentials_file": "ratchet.key"}
    shipped["global"] |= {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
    (folder / "ratchet.key").write_text(SCRAPER)
    shutil.copy(FOLDER / "rules.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--storage.tsdb.path={folder}/data"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def asked() -> dict[str, str]:
    """Query -> the panel or alert it is for: each metric of each panel and alert, and each whole panel query."""
    queries: dict[str, str] = {}
    for where, expression in everything():
        whole = [] if where in alerts() else [expression]
        queries |= dict.fromkeys([*selectors(expression), *whole], where)
    return {query: where for query, where in queries.items() if ONLY_WHILE_FIRING not in query}


def test_every_metric_of_every_panel_and_alert_returns_data(run: Run, tmp_path: Path) -> None:
    used(run)
    with prometheus(run, tmp_path) as url, httpx.Client(base_url=f"{url}/api/v1", timeout=60, trust_env=False) as api:

        def said(path: str, **params: str) -> Any:
            return api.get(path, params=params).raise_for_status().json()["data"]

        missing, deadline = asked(), time.monotonic() + 120
        while missing:
            assert time.monotonic() < deadline, (missing, (tmp_path / "log").read_text()[-3000:])
            time.sleep(2)
            with suppress(httpx.HTTPError):  # the server may not be up yet
                missing = {q: where for q, where in missing.items() if not said("/query", query=q)["result"]}
        rules = [rule for group in said("/rules")["groups"] for rule in group["rules"]]
        states = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in rules}
        assert states == dict.fromkeys(alerts(), ("ok", ""))
        (target,) = said("/targets")["activeTargets"]
        assert target["health"] == "up", target
        trouble = 'ALERTS{alertname=~"RatchetAway|ReplicaAway|UsersGetErrors|DiskFull"}'
        assert not said("/query", query=trouble)["result"]
