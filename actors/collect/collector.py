"""The collector: explores leased prompts, many at once, and delivers the outcomes to the buffer. It also settles
prompts again that got late votes."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.runtime.ports import LeasePort, Part
from actors.runtime.pulse_policy import PulsePolicy
from actors.runtime.statuses import CollectorStatus
from core.clock import Clock, SystemClock
from core.config import Config
from core.errors import Overdue, PromptError, RatchetError, StoreError
from core.messages import Lease, Outcome, Prompt, Resettle, Scored
from core.protocols import History, Policy, Votes
from core.store.encoded import encode_outcomes
from methods import recipes
from methods.data import prompts
from methods.data.held_out import kept_out
from methods.explore import NO_VOTES, about, explore, settle_again

T = TypeVar("T")
log = logging.getLogger("ratchet.collector")

LEASES = 8
"""The collector requests a lease once an eighth of `collect.in_flight` is free, not for every single prompt."""
LEASE_WAIT_S = 20.0
RETRY_S = 1.0
BATCH = 32
"""The most outcomes in one delivery. Outcomes that finish during a delivery go out together in the next."""


class Collector(Part):
    def __init__(self, buffer: LeasePort, config: Config, policy: Policy, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._policy = PulsePolicy(policy, self._clock)
        self._buffer = buffer
        self._method = recipes.build(config.method)
        self._outbox: asyncio.Queue[Outcome] = asyncio.Queue(maxsize=4 * BATCH)
        self._in_flight = 0
        self._undelivered = 0
        self._leasing = False
        self._room = asyncio.Condition()
        self._explored = 0
        self._resettled = 0
        self._idle_s = 0.0

    async def start(self) -> None:
        """Read the prompt pool without the questions of the gate and the report. `_explore` checks every other prompt
        in the same way."""
        self._probes = await asyncio.to_thread(kept_out, self._config)
        pool = (self._config.prompts, self._config.run.seed, self._probes)
        self._prompts = await asyncio.to_thread(prompts.read, *pool)

    async def run(self) -> None:
        """Keep as many prompts in flight as the config and the buffer's leases allow."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver_for_ever())
            tasks.create_task(self._settle_for_ever())
            while True:
                async with self._room:
                    await self._room.wait_for(lambda: self._free * LEASES >= self._config.collect.in_flight)
                self._leasing = True
                lease = await self._lease(self._free)
                if lease is not None:
                    for place in lease.places:
                        self._in_flight += 1
                        self._undelivered += 1
                        tasks.create_task(self._explore(lease, place))
                self._leasing = False

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """Seconds since its work last made progress; 0 while it has no work."""
        return self._policy.quiet_s

    async def status(self) -> CollectorStatus:
        return {
            "in_flight": self._in_flight,
            "explored": self._explored,
            "resettled": self._resettled,
            "idle_s": self._idle_s,
            "tokens": dict(self._policy.tokens),
        }

    @property
    def _free(self) -> int:
        return self._config.collect.in_flight - self._in_flight

    async def _lease(self, wanted: int) -> Lease | None:
        asked, token = time.monotonic(), uuid.uuid4().hex
        lease = await _insist(lambda: self._buffer.lease(wanted, LEASE_WAIT_S, token))
        if self._in_flight == 0:
            self._idle_s += time.monotonic() - asked
        return lease

    async def _explore(self, lease: Lease, place: int) -> None:
        """Explore one place, from lease to outbox. Any error becomes a failed outcome and the collector goes on: one
        prompt must not end the run. The buffer pauses learning when many fail in a row."""
        started = time.monotonic()
        try:
            prompt = dict(lease.asked).get(place) or self._prompts[place]
            if self._probes.holds(prompt):
                raise PromptError("a probe asks the same, or nearly the same; probes are never learned from")
            revision, votes = await self._votes_on(prompt) if lease.voted else (0, NO_VOTES)
            outcome = await explore(
                self._method,
                prompt,
                self._policy,
                lease_id=lease.id,
                place=place,
                clock=self._clock,
                votes=votes,
                history=History(earlier=await self._earlier(prompt.id, place), tuned=lease.tuned),
                revision=revision,
            )
            await self._outbox.put(outcome)
            self._explored += 1
            await asyncio.sleep((time.monotonic() - started) * (1 / self._config.run.cpu_share - 1))
        except Exception as error:
            failure = _named(error)
            asked = dict(lease.asked).get(place)  # the outcome names the prompt only if a retry is useless
            of = asked.id if asked is not None and isinstance(error, PromptError) else ""
            await self._outbox.put(Outcome(lease_id=lease.id, place=place, prompt_id=of, failure=failure))
        finally:
            self._in_flight -= 1
            async with self._room:
                self._room.notify_all()

    async def _deliver_for_ever(self) -> None:
        while True:
            batch = [await self._outbox.get()]
            while len(batch) < BATCH and not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
            encoded = encode_outcomes(batch)
            # until the buffer accepts it, or refuses it because the lease expired; then the place is explored again
            await _insist(lambda encoded=encoded: self._buffer.deliver(encoded))
            self._undelivered -= len(batch)

    async def _votes_on(self, prompt: Prompt) -> tuple[int, Votes]:
        revision, cast = await self._buffer.votes_on(prompt.id)
        return revision, Votes(tuple(cast))

    async def _earlier(self, prompt_id: str, place: int) -> tuple[Scored, ...]:
        return tuple(await self._buffer.earlier(prompt_id, place)) if self._method.remembers else ()

    async def _settle_for_ever(self) -> None:
        """Settle prompts again, one at a time. This calls the policy only if the method's scorer does."""
        while True:
            work = await _insist(lambda: self._buffer.resettle(LEASE_WAIT_S))
            if work is not None:
                outcome = await self._settle(work)
                await _insist(lambda outcome=outcome: self._buffer.resettled([outcome]))
                self._resettled += 1

    async def _settle(self, work: Resettle) -> Outcome:
        try:
            earlier = await self._earlier(work.prompt_id, work.place)
            return await settle_again(self._method, work, self._policy, earlier)
        except Exception as error:  # as in `_explore`
            return about(work, _named(error))


def _named(error: Exception) -> str:
    if not isinstance(error, RatchetError | OSError):
        log.exception("a prompt failed for an unforeseen reason")
    return f"{type(error).__name__}: {error}"


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """Retry while the buffer or its store is away. The supervisor ends the run if that lasts."""
    while True:
        try:
            return await call()
        except (Overdue, StoreError):
            await asyncio.sleep(RETRY_S)
