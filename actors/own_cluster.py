"""A Ray cluster of one node, for a run that joins none; it lives as long as the process that starts it."""

from typing import Any

import ray
from ray._private.node import Node

from serve.gateway import free_ports

NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")
"""Processes that Ray starts for every cluster, whatever it is told: its autoscaler, its dashboard (switched off, it
waits for usage reports, which are off too) and who reads workers' logs to the driver. Without them a run is up a second
earlier on two cores, and holds 280 MB less."""


def start(**settings: Any) -> None:
    for name in NEEDLESS:
        getattr(Node, name)  # Raises: AttributeError when Ray has renamed it
        setattr(Node, name, lambda self, **_: None)
    ray.init(
        **settings,
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        _metrics_export_port=free_ports(1)[0],
        # nobody asks this cluster for its tasks, and to remember 100,000 of them takes Ray 300 MB
        _system_config={"task_events_report_interval_ms": 0},
    )
