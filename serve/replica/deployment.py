"""One replica of the policy, a Ray Serve deployment: an engine, the reconciliation loop and the HTTP ingress.

A replica becomes healthy, and gets its first request, after it has loaded and proven the versions that the versions
actor wants. New and restarted replicas take the same path.
"""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ray import serve as rayserve
from starlette.types import ASGIApp

from core import gc_tuning
from core.clock import SystemClock
from core.codec import decode, decode_batch, encode, encode_batch
from core.config import Config
from core.errors import Overdue, PromptError, ProofError, RatchetError, Unavailable
from core.messages import PolicyRef, Pool, Prompt, Published, ReplicaReport, Sampling, Slots
from core.metrics import Metrics
from core.protocols import Mode
from core.proxy import proxy
from serve.engine.admission import Admission
from serve.engine.engine import Engine
from serve.engine.local_policy import EnginePolicy, render_candidate
from serve.engine.patches.log_handlers import kept
from serve.http.cors import with_cors
from serve.http.feedback import FeedbackClient
from serve.http.ingress import BACKGROUND_PRIORITY, USER_PRIORITY, Ingress
from serve.http.keys import Keys
from serve.http.modes import Modes
from serve.replica.actor_call import ActorCall
from serve.replica.ports import AdminPort, FeedbackPort, ReplicaPort
from serve.replica.reconcile import Prover, Reconciler
from serve.replica.telemetry import RaySink, scrape
from serve.weights.transfer import FilesPort, WeightsTransfer

log = logging.getLogger("ratchet.replica")
POLL_S = 2.0
"""A replica reports at least this often."""
RETRY_S = 0.5
ENGINE_LOOK_S = 0.1


@rayserve.ingress()  # late-bound: vLLM's app needs a running engine, see __serve_build_asgi_app__
class PolicyReplica:
    async def __init__(
        self,
        config: Config,
        pool: Pool,
        namespace: str,
        max_versions: int,
        modes: Mapping[str, Mode],
        keys: Keys,
    ) -> None:
        """Start the engine and prove the wanted versions. Serve sends requests only after this returns."""
        gc_tuning.pause()
        serve = config.serve
        self._config = config
        self._modes = modes
        self._keys = keys
        self._meter = Metrics([RaySink()])
        self._meter.begin("tokens_total", "user_requests_total", "swaps_total")
        self._feedback_port = proxy(FeedbackPort, ActorCall(namespace, "feedback"))
        self._feedback = FeedbackClient(self._feedback_port.feedback)
        self._admin = proxy(AdminPort, ActorCall(namespace, "admin"))
        self._versions_call = ActorCall(namespace, "versions", "replicas")
        self._versions = proxy(ReplicaPort, self._versions_call)
        self._ingress: Ingress | None = None
        self._following: asyncio.Task[None] | None = None
        self._swaps = 0
        self._transfer = WeightsTransfer(proxy(FilesPort, ActorCall(namespace, "versions", "files")), namespace)
        self._wanted_here: tuple[Published, ...] = ()
        self._admission = Admission(
            serve.engine.max_seqs, serve.reserve_seats, serve.busy_share, serve.active_s, SystemClock()
        )
        self._engine = Engine(
            config.model,
            serve.engine,
            max_versions=max_versions,
            seed=config.run.seed,
            multiplex=pool == "shadow",
            stat_loggers=True,
        )
        with kept("ray.serve"):
            await self._engine.start()
        await self._versions_call.found(config.run.start_timeout_s)
        name = f"{rayserve.get_replica_context().replica_tag}.{os.getpid()}"
        self._reconciler = Reconciler(name, pool, self._engine, Prover(self._engine, self._base), self._located)
        await self._reach(await self._versions.desired(-1, 0.0))
        self._check_up_to_date()
        self._following = asyncio.create_task(self._follow())
        self._engine_watch = asyncio.create_task(self._end_with_the_engine())
        gc_tuning.freeze()

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        slots, access = self._reconciler, self._config.serve.access
        policy = EnginePolicy(self._engine, priority=USER_PRIORITY)
        self._ingress = Ingress(
            await self._engine.openai_app(),
            lambda: slots.slots,
            self._admission,
            self,
            self._meter,
            slots.replica,
            Modes(self._modes, policy, lambda: f"chatcmpl-{uuid.uuid4().hex}", SystemClock(), self._config.serve.modes),
            access,
            self._keys,
            dying=lambda: self._engine.dead,
        )
        self._recording = asyncio.create_task(self._ingress.recorder.run())
        return with_cors(self._ingress, access.allow_origins)

    async def check_health(self) -> None:
        if self._following is None or self._following.done():
            raise Unavailable("the reconciliation loop of this replica ended; see its log")
        self._check_up_to_date()
        await self._engine.healthy()

    async def __del__(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._engine_watch.cancel()
            if self._ingress is not None:
                self._recording.cancel()
            await self._reconciler.stop()
        await self._engine.stop()

    # --- by handle, for collectors and evaluator ---

    async def generate(self, prompts: bytes, sampling: bytes, ref: str | None) -> list[bytes | PromptError]:
        """For each prompt its candidates, or the reason why it is refused. Waits for seats that users leave free. The
        sampling's purpose tells where tokens are counted. Raises: any other error of one prompt, for all of them."""
        want = decode(Sampling, sampling)
        try:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(self._candidates(p, want, ref)) for p in decode_batch(Prompt, prompts)]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        self._meter.set("background_in_flight", self._admission.background_held)
        return [task.result() for task in asked]

    async def _candidates(self, prompt: Prompt, want: Sampling, ref: str | None) -> bytes | PromptError:
        async with self._admission.background(want.n) as leave:
            version = PolicyRef.parse(ref) if ref else self._reconciler.slots.explore
            try:
                candidates = await self._engine.generate(
                    prompt, want, version, priority=BACKGROUND_PRIORITY, ended=leave
                )
            except PromptError as error:
                return PromptError(f"prompt {prompt.id}: {error}")
        self._meter.count("tokens_total", sum(len(c.completion_ids) // 4 for c in candidates), purpose=want.purpose)
        return encode_batch(candidates)

    async def logprobs(self, prompt: bytes, text: str, ref: str | None) -> list[float]:
        """Log-probability of every token of `text` after the prompt, including the stop token (nats)."""
        version = PolicyRef.parse(ref) if ref else self._reconciler.slots.explore
        context, completion = self._engine.render(decode(Prompt, prompt), text)
        async with self._admission.background(1):
            rows = await self._engine.score([[*context, *completion]], version)
        return rows[0][len(context) - 1 :]

    async def render(self, prompt: bytes, text: str) -> bytes:
        return encode(render_candidate(self._engine, decode(Prompt, prompt), text))

    async def render_id(self) -> str:
        return self._engine.render_id

    # --- for the routes (serve.http.routes.Control) ---

    async def status(self) -> Mapping[str, object]:
        return await self._admin.status()

    async def command(self, name: str, argument: object) -> Mapping[str, object]:
        return await self._admin.command(name, argument)

    async def overview(self) -> dict[str, object]:
        return await self._admin.overview()

    async def metrics(self) -> str:
        return await scrape()

    async def answered(self, responses: Sequence[dict[str, Any]]) -> None:
        await self._feedback_port.answered(responses)

    async def feedback(self, said: Sequence[dict[str, Any]], key: str, admin: bool) -> list[dict[str, str]]:
        return await self._feedback((said, key, admin))

    async def feedback_page(self, key: str, after: int, limit: int) -> dict[str, object]:
        return await self._feedback_port.page(key, after, limit)

    # --- reconciliation ---

    def _ingress_tokens(self) -> int:
        return self._ingress.tokens if self._ingress is not None else 0

    def _check_up_to_date(self) -> None:
        """Fails the health check of a replica that cannot prove the served version. Raises: ProofError."""
        if self._reconciler.serving != self._wanted:
            why = self._reconciler.report().failed.get(str(self._wanted), "it was not staged")
            raise ProofError(f"this replica serves {self._reconciler.serving}, wanted is {self._wanted}: {why}")

    async def _end_with_the_engine(self) -> None:
        """End this process when its engine dies. A replica without an engine fails requests at once, so the gateway
        would send it more and more of them until its health check fails; a dead replica's requests are retried."""
        while not self._engine.dead:
            await asyncio.sleep(ENGINE_LOOK_S)
        log.error("the engine died; this replica exits and Serve starts a new one")
        os._exit(1)

    async def _base(self) -> Published:
        """The trainer's record of version 0. Raises: Overdue when it does not exist in time."""
        base = await self._versions.base(self._config.run.start_timeout_s)
        return await self._located(base)

    async def _located(self, published: Published) -> Published:
        return await self._transfer.here(published, self._wanted_here)

    async def _follow(self) -> None:
        """Ends only when a swap hangs; the replica then ends too. Without the versions actor it continues to serve."""
        while True:
            try:
                await self._reach(await self._versions.desired(self._reconciler.slots.epoch, POLL_S))
            except Unavailable as error:
                log.warning("the versions actor is unavailable (%s); trying again while serving", error)
                await asyncio.sleep(RETRY_S)
                await self._versions_call.found(self._config.run.start_timeout_s)

    async def _reach(self, slots: Slots) -> None:
        """Apply one desired state and report what was proven. An unchanged epoch is reported too, as a heartbeat."""
        started = time.monotonic()
        self._wanted_here = slots.loaded
        before = self._reconciler.report()
        report = await self._applied(slots)
        self._wanted = slots.serve
        new = set(report.proven) - set(before.proven)
        if new:
            self._meter.observe("swap_seconds", time.monotonic() - started)
        for ref in sorted(new, key=lambda ref: ref.version):
            if (arrived := report.arrived.get(str(ref))) is not None:
                self._meter.set("arrival_ratio", arrived)
        self._meter.count("swaps_total", len(new), result="ok")
        self._meter.count("swaps_total", len(set(report.failed) - set(before.failed)), result="failed")
        self._meter.set("served_version", report.serving.version)
        self._meter.set("explore_version", slots.explore.version)
        for name, why in report.failed.items():
            log.error("%s", RatchetError(f"{name} was not proven: {why}"))
        self._meter.set("users_in_flight", self._admission.users)
        self._swaps += len(new)
        counters = {
            "tokens_user": self._ingress_tokens(),
            "users": self._admission.users,
            "background": self._admission.background_held,
            "background_waiting": self._admission.background_waiting,
            "background_limit": self._admission.limit(),
            "swaps": self._swaps,
            "pause_ms": 1e3 * self._engine.pauses_s[-1] if self._engine.pauses_s else 0.0,
        }
        report = report.model_copy(update={"counters": counters})
        await self._versions.report(report)

    async def _applied(self, slots: Slots) -> ReplicaReport:
        """Raises: Overdue for a swap that hangs, after telling the versions actor; Serve then replaces this replica."""
        limit_s = self._config.serve.swap_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._reconciler.apply(slots)
        except TimeoutError:
            why = f"a swap to epoch {slots.epoch} (serve {slots.serve}) hung for {limit_s:.0f} s; Serve replaces it"
            await self._versions.trouble(self._reconciler.replica, "swap_hung", why)
            raise Overdue(f"{self._reconciler.replica}: {why}") from None
