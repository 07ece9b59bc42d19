"""Start, watch, stop: each within a bound. What fails in the background reaches the person who started the run.

A part that dies, hangs or loses sight of the others is started again and finds its state in the store; one that keeps
failing, or that fails for a reason which starting again cannot mend, ends the run with that reason.
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
"""Of one part within RESTART_SPAN_S; one more ends the run."""
RESTART_SPAN_S = 300.0
RESTART_RETRY_S = 0.5
PASSING = (RayActorError, Overdue, Unavailable, StoreError)
"""Ends of a part that starting it again may mend."""


class System(Protocol):
    """What a supervisor drives; actors.system.RaySystem in earnest."""

    parts: dict[str, Any]

    def connect(self) -> None: ...
    def open_gateway(self) -> None: ...
    def make_core(self) -> None: ...
    def serve(self) -> None: ...
    def make_learners(self) -> None: ...
    def kill(self, name: str) -> None:
        """End a part's process, which Ray then brings up anew; also one that does not answer."""
        ...

    async def excused(self, name: str) -> bool:
        """Whether a part's work stands still because what it asks is away, which is not its own fault."""
        ...

    async def note(self, kind: str, **detail: object) -> None:
        """Into the run's history, as soon as the store takes it."""
        ...

    def disconnect(self) -> None: ...


class Supervisor:
    def __init__(
        self, system: System, start_timeout_s: float, stop_timeout_s: float, hang_s: float, look_s: float = 5.0
    ) -> None:
        """`hang_s`: a part whose work has not moved on for so long is killed and started again; looked at every
        `look_s`."""
        self._system = system
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._hang_s = hang_s
        self._look_s = look_s
        self._notes: set[asyncio.Task[None]] = set()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._failure: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Join or start Ray, in this very thread: its processes die with the thread that started them. It sets signal
        handlers of its own, so set yours after this."""
        try:
            self._system.connect()
        except Exception as error:
            raise _readable("connecting to Ray", error) from None

    async def start(self) -> None:
        """Returns when users can ask. Raises: Overdue naming what did not come up in time; whatever a part's `start`
        raises."""
        deadline = time.monotonic() + self._start_timeout_s
        # the way to the first answer leads over Serve's controller and the engine, so these go first
        await self._in_thread("Ray Serve", self._system.open_gateway, deadline)
        serving = asyncio.create_task(self._in_thread("the policy service", self._system.serve, deadline))
        try:
            await self._in_thread("making the actors", self._system.make_core, deadline)
            await self._bring_up(["store"], deadline)  # everybody else writes to it
            await self._bring_up([name for name in self._system.parts if name != "store"], deadline)
            await serving
        finally:
            serving.cancel()

    async def learn(self) -> None:
        """Bring up all that learns, which users need not wait for."""
        deadline = time.monotonic() + self._start_timeout_s
        known = set(self._system.parts)
        await self._in_thread("making all that learns", self._system.make_learners, deadline)
        await self._bring_up([name for name in self._system.parts if name not in known], deadline)

    async def failed(self) -> None:
        """Waits until a part cannot go on. Raises: what ended it."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Idempotent, and done within its bound whatever hangs."""
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
        """A part whose `run` ends is started again; one that keeps ending takes the run down with its reason."""
        ends: list[float] = []
        while True:
            error = await self._end_of(name)
            ends = [at for at in ends if at > time.monotonic() - RESTART_SPAN_S] + [time.monotonic()]
            if not isinstance(_root(error), PASSING) or len(ends) > RESTARTS:
                return self._fail(name, error)
            log.warning("%s ended (%s); starting it again", name, error)
            failure = await self._started_again(name)
            if failure is not None:
                return self._fail(name, failure)
            self._note("restarted", part=name, why=_brief(error), seconds=round(time.monotonic() - ends[-1], 2))

    async def _end_of(self, name: str) -> Exception:
        """Waits until a part's `run` is over, or it hangs; its process is gone, or going, when this returns."""
        running, hanging = asyncio.create_task(self._run_of(name)), asyncio.create_task(self._hang_of(name))
        try:
            await asyncio.wait({running, hanging}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                error = running.result()
                if not isinstance(error, RayActorError) and isinstance(_root(error), PASSING):
                    await _daemon(lambda: self._system.kill(name))  # a fresh process finds its state in the store
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
        """Waits until a part does not answer, or says that its work stands still, for `hang_s`."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                async with asyncio.timeout(self._hang_s):
                    quiet_s = await self._system.parts[name].quiet_s.remote()
            except TimeoutError:
                return Overdue(f"{name} did not answer for {self._hang_s:.0f} s")
            except RayError:  # it died, which its `run` tells
                continue
            if quiet_s > self._hang_s and not await self._system.excused(name):
                return Overdue(f"the work of {name} has not moved on for {quiet_s:.0f} s")

    async def _started_again(self, name: str) -> Exception | None:
        """Wait for Ray to bring the actor back and start it. Returns what kept it from starting."""
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                await self._system.parts[name].start.remote()
            except PASSING as error:
                if time.monotonic() > deadline:
                    return error
                await asyncio.sleep(RESTART_RETRY_S)
            except Exception as error:  # handed to whoever started the run
                return error
            else:
                return None

    async def _run_of(self, name: str) -> Exception:
        try:
            await self._system.parts[name].run.remote()
        except Exception as error:  # every end of a part is looked at here
            return error
        return RatchetError(f"{name} stopped by itself, which it never should")

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
            log.warning("an event was not kept: %s", error)

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
    """Await a blocking call of Ray's in a thread that nothing waits for at the end: once its cluster is gone, such a
    call may never return (Ray 2.60: `serve.start` spins in `ray.get`)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def resolve(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            call()
        except BaseException as raised:  # whatever it is, it belongs to the one who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(resolve, error)

    threading.Thread(target=work, daemon=True).start()
    await done


def _readable(what: str, error: Exception) -> RatchetError:
    """One line: what failed, and the error at the root of it; the whole story is in the log."""
    log.error("%s: %s", what, error)
    return RatchetError(f"{what}: {_brief(error)}; more in the run's logs/")


def _root(error: BaseException) -> BaseException:
    """What Ray and task groups wrapped."""
    while isinstance(error, RayTaskError | BaseExceptionGroup):
        wrapper = cast(Any, error)
        error = wrapper.cause if isinstance(error, RayTaskError) else wrapper.exceptions[0]
    return error


def _brief(error: BaseException) -> str:
    cause = _root(error)
    told = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    return told[-1].strip() if len(told) > 3 else " ".join(told)
