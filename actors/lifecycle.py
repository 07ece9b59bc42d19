"""Start, watch, stop: each within a bound. What fails in the background reaches the person who started the run."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ray.exceptions import RayActorError, RayError, RayTaskError

from core.errors import Overdue, RatchetError

log = logging.getLogger("ratchet.lifecycle")

RESTARTS = 5
"""Of one part within RESTART_SPAN_S; one more ends the run."""
RESTART_SPAN_S = 300.0
RESTART_RETRY_S = 0.5


class System(Protocol):
    """What a lifecycle drives; actors.system.RaySystem in earnest."""

    parts: dict[str, Any]

    def connect(self) -> None: ...
    def open_gateway(self) -> None: ...
    def make_core(self) -> None: ...
    def serve(self) -> None: ...
    def make_learners(self) -> None: ...
    def disconnect(self) -> None: ...


class Lifecycle:
    def __init__(self, system: System, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._system = system
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
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
            await self._bring_up(["buffer", "versions", "trainer"], deadline)
            await serving
        finally:
            serving.cancel()

    async def learn(self) -> None:
        """Bring collectors and evaluator up, which users need not wait for."""
        deadline = time.monotonic() + self._start_timeout_s
        known = set(self._system.parts)
        await self._in_thread("making collectors and evaluator", self._system.make_learners, deadline)
        await self._bring_up([name for name in self._system.parts if name not in known], deadline)

    async def failed(self) -> None:
        """Waits until a part cannot go on. Raises: what ended it."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Idempotent, and done within its bound whatever hangs."""
        for task in self._watching.values():
            task.cancel()
        await asyncio.gather(*self._watching.values(), return_exceptions=True)
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

    async def _watch(self, name: str) -> None:
        """A part whose `run` ends is started again; one that keeps ending takes the run down with its reason."""
        deaths: list[float] = []
        while True:
            error = await self._run_of(name)
            deaths = [at for at in deaths if at > time.monotonic() - RESTART_SPAN_S] + [time.monotonic()]
            if not isinstance(error, RayActorError) or len(deaths) > RESTARTS:
                return self._fail(name, error)
            log.warning("%s died (%s); starting it again", name, error)
            failure = await self._started_again(name)
            if failure is not None:
                return self._fail(name, failure)

    async def _started_again(self, name: str) -> Exception | None:
        """Wait for Ray to bring the actor back and start it. Returns what kept it from starting."""
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            try:
                await self._system.parts[name].start.remote()
            except RayActorError as error:
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

    def _fail(self, name: str, error: Exception) -> None:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        if not self._failure.done():
            self._failure.set_exception(_readable(name, error))

    async def _in_thread(self, what: str, call: Any, deadline: float) -> None:
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

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            call()
        except BaseException as raised:  # whatever it is, it belongs to the one who waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=work, daemon=True).start()
    await done


def _readable(what: str, error: Exception) -> RatchetError:
    """One line: what failed, and the error at the root of it; the whole story is in the log."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError | BaseExceptionGroup):
        cause = cause.cause if isinstance(cause, RayTaskError) else cause.exceptions[0]
    told = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
    log.error("%s: %s", what, error)
    return RatchetError(f"{what}: {told[-1].strip() if len(told) > 3 else ' '.join(told)}; more in the run's logs/")
