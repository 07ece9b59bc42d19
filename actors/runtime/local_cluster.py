# pyright: basic
"""A Ray cluster of one node, for a run that joins none; it lives as long as the process that starts it.

Private names of Ray are here: two patches, each refused for a Ray that it is not made for and with a switch
(core/patching.py), the private arguments of `ray.init`, and where Ray logs.
"""

from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.experimental.internal_kv import _internal_kv_put

from core.patching import Patch
from serve.replica.haproxy import RAY, free_ports

NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")
"""Processes that Ray starts for every cluster, whatever it is told: its autoscaler, its dashboard (switched off, it
waits for usage reports, which are off too) and who reads workers' logs to the driver. Without them a run is up a second
earlier on two cores, and holds 280 MB less."""
PROCESSES = Patch("ray_processes", *RAY, without="a run is up a second later and holds 280 MB more")
"""Patched: those methods of `Node` (ray/_private/node.py), which do nothing here. Upstream: no issue is known."""
NOWHERE = "127.0.0.1:9"
"""The port of the discard service, which nobody has."""
ADDRESS = Patch("dashboard_address", *RAY, without="the node's agent logs five lines each second")
"""Patched: the dashboard's address in Ray's own key-value store. The agent (ray/dashboard/modules/event/event_agent.py)
asks for it each second, and logs five lines when there is none. Upstream: no issue is known."""


def start(**settings: Any) -> None:
    if PROCESSES.on():
        for name in NEEDLESS:
            getattr(Node, name)  # Raises: AttributeError when Ray has renamed it
            setattr(Node, name, lambda self, **_: None)
    ray.init(
        "local",  # else a cluster that somebody else started on this machine is joined
        **settings,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _metrics_export_port=free_ports(1)[0],
        # nobody asks this cluster for its tasks, and to remember 100,000 of them takes Ray 300 MB
        _system_config={"task_events_report_interval_ms": 0},
    )
    if ADDRESS.on():
        _internal_kv_put(ray_constants.DASHBOARD_ADDRESS, NOWHERE, namespace=ray_constants.KV_NAMESPACE_DASHBOARD)


def logs_dir() -> Path:
    """Where Ray's processes of this node log. Ray has a public word for the session's name, and none for its folder."""
    return Path(ray.get_runtime_context().worker.node.get_logs_dir_path())
