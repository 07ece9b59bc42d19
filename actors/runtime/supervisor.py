"""Starts, watches and stops the actors, each step within a time limit. Failures in the background end the run with an
error message.

An actor that dies, hangs or cannot reach the others is restarted, and reads its state from the store. An actor that
keeps failing, or that fails for a reason that a restart cannot fix, ends the run with that reason.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from ray.exceptions import RayActorError, RayError, RayTaskError

from core.errors import Overdue, RatchetError, StoreError, Unavailable

log = logging.getLogger("ratchet.supervisor")

RESTARTS = 10
"""Restarts of one part allowed within RESTART_SPAN_S; one more ends the run."""
RESTART_SPAN_S = 300.0
RESTART_RETRY_S = 0.5
PASSING = (RayActorError, Overdue, Unavailable, StoreError)
"""Errors of a part that a restart may fix."""


class System(Protocol):
    """The system that a supervisor drives; in production `actors.system.RaySystem`."""

    parts: dict[str, Any]

    def connect(self) -> None: ...
    def open_gateway(self) -> None: ...
    def make_core(self) -> None: ...
    def serve(self) -> None: ...
    def make_learners(self) -> None: ...
    def kill(self, name: str) -> None:
        """Kill an actor's process, even if it does not answer. Ray then starts it again."""
        ...

    async def excused(self, name: str) -> bool:
        """Whether a part makes no progress because a service that it calls is away."""
        ...

    async def note(self, kind: str, **detail: object) -> None:
        """Write an event into the run's history, once the store accepts it."""
        ...

    def disconnect(self) -> None: ...


class Supervisor:
    def __init__(
        self, system: System, start_timeout_s: float, stop_timeout_s: float, hang_s: float, look_s: float = 5.0
    ) -> None:
        """`hang_s`: a part without progress for this long is killed and restarted. Checked every `look_s`."""
        self._system = system
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._hang_s = hang_s
        self._look_s = look_s
        self._notes: set[asyncio.Task[None]] = set()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Join or start Ray, in the calling thread, because Ray's processes die with the thread that started them. Ray
        sets its own signal handlers, so set yours afterwards."""
        try:
            self._system.connect()
        except Exception as error:
            raise _readable("connecting to Ray", error) from None

    async def start(self) -> None:
        """Returns when users can send requests. Raises: Overdue naming the part that did not start in time; any error
        of a part's `start`."""
        deadline = time.monotonic() + self._start_timeout_s
        # the first answer needs Serve's controller and the engine, which take longest, so these start first
        await self._in_thread("Ray Serve", self._system.open_gateway, deadline)
        serving = asyncio.create_task(self._in_thread("the policy service", self._system.serve, deadline))
        try:
            await self._in_thread("making the actors", self._system.make_core, deadline)
            await self._bring_up(["store"], deadline)  # all other parts write to it
            await self._bring_up([name for name in self._system.parts if name != "store"], deadline)
            await serving
        finally:
            serving.cancel()

    async def learn(self) -> None:
        """Start the parts that learn; users can already send requests."""
        deadline = time.monotonic() + self._start_timeout_s
        known = set(self._system.parts)
        await self._in_thread("making the actors that learn", self._system.make_learners, deadline)
        await self._bring_up([name for name in self._system.parts if name not in known], deadline)

    async def failed(self) -> None:
        """Waits until a part fails for good. Raises: the error that ended it."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Idempotent, and finished within its time limit even if something hangs."""
        background = [*self._watching.values(), *self._notes]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        self._watching.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stop_timeout_s):
                await _daemon(self._system.disconnect)

    async def _bring_up(self, names: list[str], deadline: float) -> None:
        for name, started in [(name, self._system.parts[name].start.remote()) for name in names]:
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await started
            except TimeoutError:
                raise Overdue(f"{name} did not start within {self._start_timeout_s:.0f} s; see its log") from None
            except RayError as error:
                raise _readable(name, error) from None
            log.info("%s is up", name)
            self._watching[name] = asyncio.create_task(self._watch(name))
            self._watching[name].add_done_callback(partial(self._unwatched, name))

    async def _watch(self, name: str) -> None:
        """Restart a part whose `run` ends. If it keeps ending, end the run with its error."""
        ends: list[float] = []
        while True:
            error = await self._end_of(name)
            ends = [at for at in ends if at > time.monotonic() - RESTART_SPAN_S] + [time.monotonic()]
            if not isinstance(_root(error), PASSING) or len(ends) > RESTARTS:
                return self._fail(name, error)
            log.warning("%s ended (%s); restarting it", name, error)
            failure = await self._started_again(name)
            if failure is not None:
                return self._fail(name, failure)
            self._note("restarted", part=name, why=_brief(error), seconds=round(time.monotonic() - ends[-1], 2))

    async def _end_of(self, name: str) -> Exception:
        """Waits until a part's `run` ends or the part hangs. When this returns its process is gone or being killed."""
        running, hanging = asyncio.create_task(self._run_of(name)), asyncio.create_task(self._hang_of(name))
        try:
            await asyncio.wait({running, hanging}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                error = running.result()
                if not isinstance(error, RayActorError) and isinstance(_root(error), PASSING):
                    await _daemon(lambda: self._system.kill(name))  # a fresh process reads its state from the store
                return error
            error = hanging.result()
            log.error("%s", error)
            self._note("hung", part=name, why=str(error))
            await _daemon(lambda: self._system.kill(name))
            return error
        finally:
            running.cancel()
            hanging.cancel()
            await asyncio.gather(running, hanging, return_exceptions=True)

    async def _hang_of(self, name: str) -> Exception:
        """Waits until a part has not answered, or has reported no progress, for `hang_s`."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                async with asyncio.timeout(self._hang_s):
                    quiet_s = await self._system.parts[name].quiet_s.remote()
            except TimeoutError:
                return Overdue(f"{name} did not answer for {self._hang_s:.0f} s")
            except RayError:  # it died; `_run_of` reports that
                continue
            if quiet_s > self._hang_s and not await self._system.excused(name):
                return Overdue(f"{name} has made no progress for {quiet_s:.0f} s")

    async def _started_again(self, name: str) -> Exception | None:
        """Wait for Ray to recreate the actor, then start it. Returns the error if it could not start."""
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                await self._system.parts[name].start.remote()
            except PASSING as error:
                if time.monotonic() > deadline:
                    return error
                await asyncio.sleep(RESTART_RETRY_S)
            except Exception as error:  # passed on to `failed`
                return error
            else:
                return None

    async def _run_of(self, name: str) -> Exception:
        try:
            await self._system.parts[name].run.remote()
        except Exception as error:  # the caller inspects every error
            return error
        return RatchetError(f"{name} stopped by itself; it should run until it is cancelled")

    def _unwatched(self, name: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(name, error)

    def _note(self, kind: str, **detail: object) -> None:
        task = asyncio.create_task(self._system.note(kind, **detail))
        self._notes.add(task)
        task.add_done_callback(self._noted)

    def _noted(self, task: asyncio.Task[None]) -> None:
        self._notes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("an event was not stored: %s", error)

    def _fail(self, name: str, error: Exception) -> None:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        if not self._failure.done():
            self._failure.set_exception(_readable(name, error))

    async def _in_thread(self, what: str, call: Callable[[], None], deadline: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await _daemon(call)
                log.info("%s: done", what)
        except TimeoutError:
            raise Overdue(f"{what} took longer than {self._start_timeout_s:.0f} s") from None
        except RatchetError:
            raise
        except Exception as error:
            log.exception("%s", what)
            raise _readable(what, error) from None


async def _daemon(call: Callable[[], None]) -> None:
    """Await a blocking Ray call in a daemon thread, which does not delay the process's exit. Once the cluster is gone
    such a call may never return (Ray 2.60: `serve.start` spins in `ray.get`)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def resolve(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            call()
        except BaseException as raised:  # raised again in the waiting task
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits any more
            loop.call_soon_threadsafe(resolve, error)

    threading.Thread(target=work, daemon=True).start()
    await done


def _readable(what: str, error: Exception) -> RatchetError:
    """One line with the failed step and the root cause; the log has the full error."""
    log.error("%s: %s", what, error)
    return RatchetError(f"{what}: {_brief(error)}; more in the run's logs/")


def _root(error: BaseException) -> BaseException:
    """The error inside the wrappers of Ray and of task groups."""
    while isinstance(error, RayTaskError | BaseExceptionGroup):
        wrapper = cast(Any, error)
        error = wrapper.cause if isinstance(error, RayTaskError) else wrapper.exceptions[0]
    return error


def _brief(error: BaseException) -> str:
    cause = _root(error)
    lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    return lines[-1].strip() if len(lines) > 3 else " ".join(lines)
