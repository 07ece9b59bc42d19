"""What we change in Ray is where it was, and Ray still needs it."""

import inspect
from pathlib import Path

import ray
import ray.actor
from ray._private import ray_constants
from ray._private.node import Node
from ray.runtime_context import RuntimeContext

from actors.runtime.local_cluster import NEEDLESS


def test_ray_still_starts_processes_that_a_run_does_not_need() -> None:
    head, others = (inspect.getsource(start) for start in (Node.start_head_processes, Node.start_ray_processes))
    assert all(f"self.{name}(" in head + others for name in NEEDLESS)
    assert "\n        self.start_api_server(" in head, "whatever `include_dashboard` says"


def test_ray_still_starts_each_worker_with_a_script_of_a_settable_name() -> None:
    """Its two interpreters each import Ray; `os.path.join` takes our absolute path as it is."""
    assert "ray_constants.SETUP_WORKER_FILENAME" in inspect.getsource(Node.__init__)
    script = Path(ray.__file__).parent / "_private/workers" / ray_constants.SETUP_WORKER_FILENAME
    assert "exec_worker" in script.read_text() and "import ray" in script.with_name("default_worker.py").read_text()


def test_the_actors_are_imported_without_an_id_drawn_from_the_stream_that_forks_would_share() -> None:
    source = inspect.getsource(ray.actor)
    assert "ActorClassID.from_random()" in source, "actors/preloaded.py need not replace it any more"


def test_rays_agent_still_asks_for_the_dashboards_address() -> None:
    agent = Path(ray.__file__).parent / "dashboard/modules/event/event_agent.py"
    assert "ray_constants.DASHBOARD_ADDRESS.encode()" in agent.read_text()


def test_a_node_knows_where_ray_logs() -> None:
    assert "self.worker.node." in inspect.getsource(RuntimeContext.get_session_name)
    assert callable(Node.get_logs_dir_path)
