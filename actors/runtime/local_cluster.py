"""A Ray cluster of one node, for a run that joins none; it lives as long as the process that starts it."""

from typing import Any

import ray
from ray._private import ray_constants
from ray._private.node import Node
from ray.experimental.internal_kv import _internal_kv_put

from serve.replica.haproxy import free_ports

NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")
"""Processes that Ray starts for every cluster, whatever it is told: its autoscaler, its dashboard (switched off, it
waits for usage reports, which are off too) and who reads workers' logs to the driver. Without them a run is up a second
earlier on two cores, and holds 280 MB less."""
NOWHERE = "127.0.0.1:9"
"""The port of the discard service, which nobody has."""


def start(**settings: Any) -> None:
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
    # the node's agent asks each second where the dashboard is, and logs five lines when nobody says
    _internal_kv_put(ray_constants.DASHBOARD_ADDRESS, NOWHERE, namespace=ray_constants.KV_NAMESPACE_DASHBOARD)
