"""A cluster of three hosts, from `ray up` to `ray down`: a run deployed with cluster.yaml learns, serves and recovers.

The tests share one cluster and depend on each other, in order. The hosts are namespaces of this machine (hosts.py).
"""

import json
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.cli.cluster_file import merged
from core.store.writer import RunReader
from serve.http.keys import PREFIX
from tests.real.hosts import HOME, ROOT, VENV, Hosts, hosts, until, why_not

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
HERE = Path(__file__).parent
WORKERS = ("one", "two")
URL = "http://10.77.0.1:8000"
ANOTHER_URL = "http://10.77.0.2:8000"
"""Each node with a replica also has a gateway."""
IN_A_ROW = 40
"""After this many consecutive answers the service counts as recovered."""
QUESTION = {"model": "policy", "messages": [{"role": "user", "content": "Tom has 5 apples and eats 2. How many?"}]}
CALL = """
import http.client, json, sys, urllib.request, urllib.error
method, url, key, body = json.loads(sys.argv[1])
told = {"content-type": "application/json"} | ({"authorization": "Bearer " + key} if key else {})
asked = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, told, method=method)
try:
    with urllib.request.urlopen(asked, timeout=60) as reply:
        print(json.dumps([reply.status, json.loads(reply.read())]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode(errors="replace")]))
except (OSError, http.client.HTTPException) as error:
    print(json.dumps([0, repr(error)]))
"""
STRANGER = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
try:
    ray.init(sys.argv[1], log_to_driver=False)
    print("let in")
except Exception as error:
    print("refused", type(error).__name__, error)
"""


@dataclass
class Cluster:
    hosts: Hosts
    key: str

    @property
    def run_dir(self) -> Path:
        return self.hosts["head"].folder / "home/ratchet/runs/cluster"

    def laptop(self, command: str, timeout_s: float = 120, check: bool = True) -> str:
        return self.hosts["laptop"].run(f"cd ~/checkout && {command}", timeout_s, check)

    def head(self, command: str, timeout_s: float = 120, check: bool = True) -> str:
        return self.hosts["head"].run(command, timeout_s, check)

    def call(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """An HTTP request from the laptop, which is not part of the cluster. Returns status and body."""
        url = path if path.startswith("http") else URL + path
        arguments = json.dumps([method, url, self.key if key is None else key, body])
        told = self.hosts["laptop"].run(f"{VENV}/bin/python -I -S -c {shlex.quote(CALL)} {shlex.quote(arguments)}")
        status, reply = json.loads(told.splitlines()[-1])
        return status, reply

    def ask(self, gateway: str = URL) -> tuple[int, Any]:
        return self.call("POST", f"{gateway}/v1/chat/completions", QUESTION)

    def status(self) -> dict[str, Any]:
        status, reply = self.call("GET", "/status")
        return reply if status == 200 else {}

    def replicas(self) -> dict[str, dict[str, Any]]:
        return self.status().get("versions", {}).get("replicas", {})

    def nodes(self) -> list[str]:
        """Addresses of the nodes that are alive."""
        told = self.head("ray list nodes --format json --filter state=ALIVE 2>/dev/null", check=False)
        try:
            return sorted(node["node_ip"] for node in json.loads(told[told.index("[") :]))
        except ValueError:
            return []

    def processes(self, host: str, title: str) -> list[int]:
        """Pids of the processes whose command matches `title` at its start."""
        listed = (line.split(None, 1) for line in self.hosts[host].run("ps -eo pid=,args=").splitlines())
        return [int(pid) for pid, command in listed if re.match(title, command)]

    def wait(self, what: str, condition: Callable[[], Any], timeout_s: float = 300) -> float:
        """As `until`; on a timeout the error also has the ends of the cluster's logs."""
        try:
            return until(what, lambda: bool(condition()), timeout_s, pause_s=1.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.last_words()}") from None

    def last_words(self) -> str:
        logs = "~/ratchet/runs/cluster/logs/service.log ~/ratchet/runs/cluster/logs/driver.log"
        session = "/tmp/ray/session_latest/logs/monitor.out /tmp/ray/session_latest/logs/serve/*.log"
        return self.head(f'for f in {logs} {session}; do echo "== $f"; tail -n 25 $f; done', check=False)[-12000:]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    with hosts(folder, ("head", *WORKERS, "laptop"), {"laptop": [(ROOT, HOME / "checkout")]}) as made:
        yield Cluster(made, prepare(made))


def prepare(made: Hosts) -> str:
    """The steps that a person takes before `ray up`: an ssh key, Ray's token, an API key, the cluster file. Returns the
    API key."""
    for host in made.by_name.values():  # all hosts share one environment, to save minutes and gigabytes
        (host.folder / "home/.bashrc").write_text(
            f"export RATCHET_VENV={VENV} RATCHET_FLAVOUR=cpu PATH=/usr/sbin:$PATH\n"
        )
    for host, places in (("head", {"collecting": 1}), ("one", {"serving": 1, "training": 1}), ("two", {"serving": 1})):
        (made[host].folder / "home/places.json").write_text(json.dumps(places))
    laptop = made["laptop"]
    home = laptop.folder / "home"
    (home / "key").write_bytes((made.folder / "key").read_bytes())
    (home / "key").chmod(0o600)
    with (home / ".bashrc").open("a") as bashrc:
        bashrc.write(f"export PATH={VENV}/bin:$PATH PYTHONPATH=~/checkout RAY_AUTH_MODE=token\n")
    differences = [
        ROOT / "configs/cluster/own-machines.yaml",
        ROOT / "configs/cluster/redis.yaml",
        HERE / "cluster.yaml",
    ]
    tree = merged(ROOT / "cluster.yaml", differences)
    starts = [c.replace("configs/cluster/ratchet.yaml", "settings.yaml") for c in tree["head_start_ray_commands"]]
    tree["head_start_ray_commands"] = starts
    (home / "cluster.yaml").write_text(yaml.safe_dump(tree, sort_keys=False, width=1000))
    (home / "settings.yaml").write_text((HERE / "cluster-settings.yaml").read_text())
    laptop.run("umask 077 && ray get-auth-token --generate > /dev/null")
    told = laptop.run("cd ~ && python -m actors.cli keys tester --role admin --file ~/keys.txt")
    return next(word for word in told.split() if word.startswith(PREFIX))


def test_ray_up_brings_up_three_nodes_and_a_version_is_proven_on_both_workers(cluster: Cluster) -> None:
    cluster.laptop("ray up -y ~/cluster.yaml", timeout_s=600)
    cluster.wait("three nodes", lambda: len(cluster.nodes()) >= 3, 600)
    assert cluster.nodes() == ["10.77.0.1", "10.77.0.2", "10.77.0.3"], "the head was counted as a worker"
    cluster.wait("answer", lambda: cluster.ask()[0] == 200, 900)
    for worker in WORKERS:
        assert len(cluster.processes(worker, "ray::ServeReplica")) == 1
    assert not cluster.processes("head", "ray::ServeReplica")
    cluster.wait(
        "version proven by both replicas",
        lambda: len(proven := [r["proven"] for r in cluster.replicas().values()]) == 2 and all(1 in p for p in proven),
        900,
    )
    assert cluster.processes("one", "ray::Trainer")
    for part in ("Store", "Versions", "Buffer", "FeedbackDesk", "Admin", "Evaluator", "Collector"):
        assert cluster.processes("head", f"ray::{part}"), f"{part} is not on the head"
    assert not (cluster.hosts["one"].folder / "home/ratchet/runs").exists(), "only the head may have the run directory"


def test_a_user_asks_and_votes_and_strangers_reach_nothing(cluster: Cluster) -> None:
    status, answer = cluster.ask()
    assert status == 200
    said = {"response_id": answer["id"], "choice": 0, "binary": True, "user": "ann"}
    status, told = cluster.call("POST", "/v1/feedback", said)
    assert status == 200, told
    assert RunReader(cluster.run_dir).count("feedback") == 1
    assert cluster.call("POST", "/v1/chat/completions", QUESTION, key="")[0] == 401
    assert cluster.call("GET", "/status", key="")[0] == 401
    # without the head's gateway: the replica's own ports, and the gateway of its node
    listening = cluster.hosts["one"].run("ss -ltnH | awk '{print $4}' | grep -v ^127").split()
    numbers = {int(address.rpartition(":")[2]) for address in listening}
    for port in (number for number in numbers if number == 8000 or 30_000 <= number < 31_000):
        status, _ = cluster.call("POST", f"http://10.77.0.2:{port}/v1/chat/completions", QUESTION, key="")
        assert status in (0, 401), f"port {port} of a worker answers a stranger with {status}"  # 0: not HTTP

    def tried(address: str) -> str:
        command = f"cd / && python -c {shlex.quote(STRANGER)} {address} 2>/dev/null"
        return f"{address}: {cluster.hosts['laptop'].run(command, 180)}"

    addresses = ("10.77.0.1:6379", "ray://10.77.0.1:10001")
    with ThreadPoolExecutor() as strangers:  # each attempt takes long to time out
        for told in strangers.map(tried, addresses):
            assert ": refused" in told, told
    assert cluster.call("GET", "http://10.77.0.2:52365/logs", key="")[0] == 401
    # Redis refuses other hosts and clients without the password
    assert cluster.hosts["one"].run("redis-cli -h 10.77.0.1 -p 6380 ping 2>&1 || true").startswith("Could not connect")
    assert "NOAUTH" in cluster.head("redis-cli -p 6380 ping 2>&1 || true")


def test_a_head_whose_ray_dies_comes_back_with_the_same_run(cluster: Cluster) -> None:
    held = RunReader(cluster.run_dir).count("feedback")
    before, replicas = cluster.status()["versions"], [cluster.processes(w, "ray::ServeReplica") for w in WORKERS]
    dead = cluster.processes("head", r"ray::|.*/(gcs_server|raylet) |.*default_worker\.py")
    cluster.head(f"kill -KILL {' '.join(map(str, dead))}")
    began, elsewhere = time.monotonic(), []
    cluster.wait("end of service", lambda: cluster.ask()[0] != 200, 120)
    while cluster.ask()[0] != 200:
        assert time.monotonic() < began + 900, cluster.last_words()
        status, told = cluster.ask(ANOTHER_URL)
        elsewhere.append(status if status == 200 else f"{status} {told[:60]}")
    now = [cluster.processes(w, "ray::ServeReplica") for w in WORKERS]
    print(f"the head answers again after {time.monotonic() - began:.0f} s; a worker's gateway: {Counter(elsewhere)}")
    print(f"replicas {replicas} before, {now} after")
    assert 200 in elsewhere, "no other gateway answered while the head was down"
    cluster.wait("three nodes", lambda: len(cluster.nodes()) == 3, 300)
    cluster.wait("status", lambda: "slots" in cluster.status().get("versions", {}), 300)
    after = cluster.status()["versions"]
    assert after["slots"]["serve"] >= before["slots"]["serve"] and after["decided"] >= before["decided"]
    assert RunReader(cluster.run_dir).count("feedback") == held
    cluster.wait("two replicas", lambda: len(cluster.replicas()) == 2, 600)


def test_a_worker_that_dies_costs_no_answer_that_is_asked_again_and_comes_back(cluster: Cluster) -> None:
    published = len(RunReader(cluster.run_dir).events("published"))
    cluster.hosts["two"].kill()
    failed, answered, in_a_row = 0, 0, 0
    began = time.monotonic()
    while in_a_row < IN_A_ROW:
        assert time.monotonic() < began + 180, f"{failed} of {failed + answered} asks failed since a worker died"
        status, answer = cluster.ask()
        failed, answered = failed + (status != 200), answered + (status == 200)
        in_a_row = in_a_row + 1 if status == 200 else 0
    print(f"{failed} of {failed + answered} asks failed in the {time.monotonic() - began:.0f} s after a worker died")
    assert answered > failed
    status, answer = cluster.ask()
    assert status == 200
    assert cluster.call("POST", "/v1/feedback", {"response_id": answer["id"], "choice": 0, "binary": False})[0] == 200
    assert RunReader(cluster.run_dir).count("feedback") == 2, "acknowledged feedback was lost"
    cluster.wait("another version", lambda: len(RunReader(cluster.run_dir).events("published")) > published, 600)
    cluster.wait("two nodes", lambda: len(cluster.nodes()) == 2, 120)
    cluster.hosts["two"].start()
    cluster.hosts.connect(cluster.hosts["two"])
    took_s = cluster.wait("three nodes", lambda: len(cluster.nodes()) == 3, 600)
    print(f"the worker is back after {took_s:.0f} s")
    cluster.wait("two replicas", lambda: len(cluster.replicas()) == 2, 600)


def test_ray_down_ends_all_of_it_and_leaves_the_run(cluster: Cluster) -> None:
    cluster.laptop("ray down -y ~/cluster.yaml", timeout_s=300)
    cluster.wait("end of the head", lambda: not cluster.processes("head", r".*(gcs_server|raylet|actors\.cli) "), 120)
    for worker in WORKERS:  # Ray's local provider does not stop workers; they end when the head is gone
        cluster.wait(f"end of {worker}", lambda worker=worker: not cluster.processes(worker, ".*raylet/raylet "), 120)
    assert RunReader(cluster.run_dir).count("feedback") == 2
