"""Exports vLLM's step statistics through Ray once per TELL_S, and reports each finished request at once.

Patched: `RayPrometheusStatLogger.record` (vllm/v1/metrics/ray_wrappers.py), by a subclass that vLLM accepts as a
`stat_logger`; its base class gets the sums of many steps. Why: exported one by one, the 150 steps per second of a small
model cost their replica a sixth of its time; and without a report per sample, a group gives its seats back only when
its last sample ends. Upstream: https://github.com/vllm-project/vllm/pull/17925 added the class; no issue about its cost
is known. Holds for: vLLM 0.31.
"""

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from vllm import envs
from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
from vllm.v1.metrics.stats import IterationStats, PromptTokenStats

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("stat_logger", without="metrics cost more, and seats become free only when a whole group has ended")
TELL_S = 1.0
GAPS = 64
"""Inter-token gaps exported at a time, evenly sampled: all of them, thousands per second, would cost as much again."""


def stat_logger(ended: Callable[[str], None]) -> type[RayPrometheusStatLogger]:
    """vLLM's logger for Ray Serve. It also calls `ended` with the request's id at the end of each of its n samples.

    It exports sums of steps: an iteration in `iteration_tokens_total` is all steps within TELL_S, and
    `inter_token_latency_seconds` is a sample of all gaps."""
    if not PATCH.on():
        return RayPrometheusStatLogger

    class ReplicaStats(RayPrometheusStatLogger):
        _told_at = 0.0
        _queries = _hits = 0
        _steps: IterationStats | None = None

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: IterationStats | None,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            if iteration_stats is not None:
                for finished in iteration_stats.finished_requests:
                    ended(finished.request_id or "")
                self._steps = added(self._steps, iteration_stats)
            if scheduler_stats is None:
                return
            self._queries += scheduler_stats.prefix_cache_stats.queries
            self._hits += scheduler_stats.prefix_cache_stats.hits
            now = time.monotonic()
            if scheduler_stats.num_running_reqs and now - self._told_at < TELL_S:
                return
            scheduler_stats.prefix_cache_stats.queries = self._queries
            scheduler_stats.prefix_cache_stats.hits = self._hits
            if self._steps is not None:
                self._steps.inter_token_latencies_iter = thinned(self._steps.inter_token_latencies_iter)
            super().record(scheduler_stats, self._steps, mm_cache_stats, engine_idx)
            self._told_at, self._queries, self._hits, self._steps = now, 0, 0, None

        def log_engine_initialized(self) -> None:
            super().log_engine_initialized()
            envs.enable_envs_cache()  # without it each step reads os.environ; vLLM's own server sets it too

    return ReplicaStats


def thinned(gaps: list[float]) -> list[float]:
    """At most GAPS of them, evenly spaced."""
    return gaps[:: -(-len(gaps) // GAPS)] if gaps else gaps


def added(steps: IterationStats | None, step: IterationStats) -> IterationStats:
    """Add one step to `steps` in place: sums numbers and joins lists."""
    if steps is None:
        return step
    for name, value in vars(step).items():
        if isinstance(value, list):
            getattr(steps, name).extend(value)
        elif isinstance(value, PromptTokenStats):
            for part in fields(value):
                source = steps.prompt_token_stats
                setattr(source, part.name, getattr(source, part.name) + getattr(value, part.name))
        elif name != "iteration_timestamp":
            setattr(steps, name, getattr(steps, name) + value)
    return steps
