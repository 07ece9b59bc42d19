"""Calls from one actor to another: by name, with a deadline, and with retries while the other restarts.

While the disk is full the store refuses to write. The writer then waits for room without a deadline, and so does every
caller that waits for the writer. So learning stops by itself, and continues by itself once there is room.

Retries are safe. Nearly every call is idempotent; a lease requested twice with the same token is one lease; a version
number taken twice leaves one number unused.
"""

import asyncio
import time
from typing import Any, TypeVar, cast

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from core.errors import Overdue, RatchetError, StorageFull, Unavailable
from core.proxy import proxy

P = TypeVar("P")

STORE = "store"
STORE_WAIT_S = 5.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0


def local(part: P) -> P:
    """A part in this process behind the same proxy as a remote one: for `actors.in_process` and tests."""
    return proxy(type(part), LocalCall(part))


def remote(port: type[P], name: str, namespace: str, deadline_s: float = 60.0, part: str = "") -> P:
    """An actor's port. `part`: the attribute of the actor that implements the port; empty for the actor itself."""
    return proxy(port, RemoteCall(name, namespace, deadline_s, part))


class LocalCall:
    def __init__(self, part: object) -> None:
        self._part = part

    async def __call__(self, method: str, *arguments: object, **settings: object) -> Any:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                return await getattr(self._part, method)(*arguments, **settings)
            except StorageFull:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)


class RemoteCall:
    """A call to an actor. Looks the actor up by name when there is no handle yet, or after the handle failed."""

    def __init__(self, name: str, namespace: str, deadline_s: float, part: str) -> None:
        self._name = name
        self._namespace = namespace
        self._deadline_s = deadline_s
        self._part = part
        self._handle: Any = None

    def __reduce__(self) -> tuple[object, ...]:
        return RemoteCall, (self._name, self._namespace, self._deadline_s, self._part)

    async def __call__(self, method: str, *arguments: object, **settings: object) -> Any:
        """Raises: Overdue when no answer came by the deadline; any error that the method raises."""
        stop_at = time.monotonic() + self._deadline_s
        delay_s = FIRST_DELAY_S
        while True:
            try:
                return await self._attempt(method, arguments, settings, stop_at - time.monotonic())
            except StorageFull:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
                stop_at = time.monotonic() + self._deadline_s
                continue
            except (RayActorError, ActorUnavailableError, Unavailable, ValueError) as error:
                if isinstance(error, ValueError) and not _is_missing_actor(error):
                    raise
                last = error
            except Overdue:  # the actor raised it: a call of its own was late
                raise
            except TimeoutError:
                raise Overdue(f"{self._name}.{method} did not answer within {self._deadline_s:.0f} s") from None
            if time.monotonic() + delay_s > stop_at:
                raise Overdue(f"{self._name}.{method} was out of reach for {self._deadline_s:.0f} s: {last}") from None
            self._handle = None
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _attempt(
        self, method: str, arguments: tuple[object, ...], settings: dict[str, object], left_s: float
    ) -> Any:
        if self._handle is None:
            self._handle = self._find(self._name)
        answer = asyncio.ensure_future(_answer(self._handle.invoke.remote(self._part, method, *arguments, **settings)))
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=max(left_s, 0.01))
                if not answer.done() and not await self._disk_is_full():
                    raise TimeoutError
                left_s = self._deadline_s
            return answer.result()
        finally:
            answer.cancel()

    async def _disk_is_full(self) -> bool:
        """Whether the store reports a full disk, now or within the last deadline. False when the store does not
        answer."""
        try:
            status = await asyncio.wait_for(_answer(self._find(STORE).status.remote()), STORE_WAIT_S)
        except (TimeoutError, RatchetError, RayError, ValueError):
            return False
        room_for_s = status.get("room_for_s")
        return status.get("full") is not None or (room_for_s is not None and room_for_s < self._deadline_s)

    def _find(self, name: str) -> Any:
        return cast(Any, ray).get_actor(name, self._namespace)


async def _answer(reference: Any) -> Any:
    return await reference


def _is_missing_actor(error: ValueError) -> bool:
    return type(error) is ValueError and "Failed to look up actor" in str(error)
