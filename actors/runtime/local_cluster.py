# pyright: basic
"""A Ray cluster of one node, for a run that joins no other. It ends with the process that started it.

This module uses private names of Ray, which have no types: three patches, the private arguments of `ray.init`, and the
folder of Ray's logs. Each patch has a switch and is refused for a version of Ray that it was not made for
(core/patching.py).
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.experimental.internal_kv import _internal_kv_put

from actors.runtime import forked_worker
from core.config import Config
from core.fork_server import SERVER, share
from core.patching import Patch
from serve.engine.arguments import environment
from serve.engine.patches import fork_server
from serve.http import keys_file
from serve.replica.haproxy import RAY, free_ports

NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")
"""Processes that Ray starts for every cluster, with no option to turn them off: the autoscaler, the dashboard (with the
dashboard off it only waits to send usage reports, which are off too), and the log monitor. Without them a run starts
one second sooner on two cores and needs 280 MB less."""
PROCESSES = Patch("ray_processes", *RAY, without="a run starts one second later and needs 280 MB more")
"""Patched: these methods of `Node` (ray/_private/node.py) do nothing. Upstream: no known issue."""
NOWHERE = "127.0.0.1:9"
"""The port of the discard service: nothing listens there."""
ADDRESS = Patch("dashboard_address", *RAY, without="the node's agent logs five lines each second")
"""Patched: the dashboard's address in Ray's key-value store. The node's agent
(ray/dashboard/modules/event/event_agent.py) reads it each second, and logs five lines while there is none. Upstream: no
known issue."""
FORKED = Patch("forked_workers", *RAY, without="each process of a run imports Ray twice, and starts seconds later")
"""Patched: `SETUP_WORKER_FILENAME` in ray/_private/ray_constants.py, the script that raylet starts each worker with
(forked_worker.py). Why: Ray can start workers early, and import modules in each, but not fork them. Upstream: no known
issue."""


def forks_environment() -> dict[str, str]:
    """What Ray's library reads once, when the fork server imports it: the job, and the process whose end ends a worker.
    That is Raylet, which is not there yet, and so its parent."""
    return {forked_worker.JOB: forked_worker.FIRST, "RAY_RAYLET_PID": str(os.getpid())}


def forks(config: Config) -> AbstractContextManager[Callable[[Path], None] | None]:
    """The fork server of this machine's engines and workers (`core.fork_server.share`); None where nothing is forked.
    Enter it before `start`."""
    if not fork_server.applies():
        return nullcontext()
    told = {name: value for name, value in os.environ.items() if name != keys_file.ENVIRONMENT}
    told |= environment(config.model, config.serve.engine)
    if not FORKED.on():
        return share(told, fork_server.PRELOADED)
    preloaded = (*fork_server.PRELOADED, *fork_server.OF_REPLICAS, "actors.preloaded")
    return share(told | forks_environment(), preloaded)


def start(**settings: Any) -> None:
    if PROCESSES.on():
        for name in NEEDLESS:
            getattr(Node, name)  # raises AttributeError if Ray has renamed the method
            setattr(Node, name, lambda self, **_: None)
    if FORKED.on() and SERVER in os.environ:
        assert ray_constants.SETUP_WORKER_FILENAME  # Ray joins it to its folder, and so this path stays as it is
        ray_constants.SETUP_WORKER_FILENAME = forked_worker.__file__
    ray.init(
        "local",  # else Ray joins any cluster that already runs on this machine
        **settings,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _metrics_export_port=free_ports(1)[0],
        # nothing reads this cluster's task events, and Ray needs 300 MB to keep 100,000 of them
        _system_config={"task_events_report_interval_ms": 0},
    )
    if ADDRESS.on():
        _internal_kv_put(ray_constants.DASHBOARD_ADDRESS, NOWHERE, namespace=ray_constants.KV_NAMESPACE_DASHBOARD)


def logs_dir() -> Path:
    """The folder of Ray's logs on this node. Ray has a public call for the session's name, but not for its folder."""
    return Path(ray.get_runtime_context().worker.node.get_logs_dir_path())
