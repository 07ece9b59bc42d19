"""The policy service as Ray Serve applications: one with LoRA; a serving and a shadow one with full weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve as rayserve
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from core.config import Config, Full, ServeConfig
from core.messages import Pool
from core.protocols import Mode
from serve.engine import tensor_parallel
from serve.engine.arguments import environment
from serve.http.keys import Keys
from serve.replica.deployment import PolicyReplica

APP = "policy"
SHADOW_APP = "policy-shadow"


@dataclass(frozen=True)
class PolicyHandles:
    """Serve handles of the policy's replicas."""

    users: DeploymentHandle
    learning: DeploymentHandle
    """For collectors and evaluator: the same replicas with LoRA, the shadow replica with full weights."""


def max_versions(config: Config) -> int:
    """Adapters that one engine holds at once: the served version, the champion, one being unloaded, one being measured,
    the best held one, and every undecided candidate."""
    return 4 + config.learning.max_lag + 2


def open_gateway(config: Config) -> None:
    """Start Serve's controller and HAProxy, before there are replicas."""
    rayserve.start(http_options=HTTPOptions(host=config.serve.host, port=config.serve.port, request_timeout_s=None))


def deploy(config: Config, namespace: str, gpus: float, modes: Mapping[str, Mode], keys: Keys) -> PolicyHandles:
    """Start the replicas and wait until all are healthy; each reserves `gpus` in Ray.

    Raises: RuntimeError when a replica cannot start, with the replica's own error."""
    serve = config.serve
    if not isinstance(config.model.weights, Full):
        handle = _run(config, "any", namespace, APP, "/", serve.replicas, gpus, modes, keys)
        return PolicyHandles(users=handle, learning=handle)
    users = _run(config, "serving", namespace, APP, "/", serve.replicas, gpus, modes, keys)
    return PolicyHandles(users=users, learning=_run(config, "shadow", namespace, SHADOW_APP, None, 1, gpus, {}, keys))


def undeploy() -> None:
    """Drain and stop Ratchet's applications; other applications of the cluster stay."""
    ours = [name for name in rayserve.status().applications if name in (APP, SHADOW_APP)]
    for name in ours:
        rayserve.delete(name)


def _count(serve: ServeConfig, replicas: int, fixed: bool) -> dict[str, Any]:
    """Serve's options for a fixed number of replicas or for autoscaling."""
    if fixed or serve.max_replicas is None:
        return {"num_replicas": replicas}
    return {
        "autoscaling_config": {
            "min_replicas": replicas,
            "max_replicas": serve.max_replicas,
            "target_ongoing_requests": serve.requests_per_replica,
        }
    }


def _run(
    config: Config,
    pool: Pool,
    namespace: str,
    name: str,
    prefix: str | None,
    replicas: int,
    gpus: float,
    modes: Mapping[str, Mode],
    keys: Keys,
) -> DeploymentHandle:
    deployment = rayserve.deployment(
        PolicyReplica,
        name=name,
        **_count(config.serve, replicas, fixed=pool == "shadow"),
        max_ongoing_requests=10_000,
        health_check_period_s=5,
        graceful_shutdown_wait_loop_s=1,
        graceful_shutdown_timeout_s=config.run.stop_timeout_s / 2,
        logging_config=LoggingConfig(enable_access_log=False),  # it writes each request into two files
        ray_actor_options={
            **tensor_parallel.actor(config.serve.engine, gpus),
            "resources": {config.cluster.serving: 1} if config.cluster.serving is not None else {},
            "runtime_env": {"env_vars": environment(config.model, config.serve.engine, gpu=gpus > 0)},
        },
        **tensor_parallel.placement(config.serve.engine),
    )
    app = deployment.bind(config, pool, namespace, max_versions(config), modes, keys)
    try:
        return rayserve.run(app, name=name, route_prefix=prefix)
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{_why(name)}") from None


def _why(name: str) -> str:
    """Serve's status message of a deployment that failed to start. It ends with the last replica's error, which the
    exception from Serve leaves out."""
    for application in rayserve.status().applications.values():
        if name in application.deployments:
            return application.deployments[name].message
    return ""
