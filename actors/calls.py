"""How one actor asks another: by name, with a deadline, trying again while the other restarts.

Trying again is safe: nearly every call is idempotent, a lease taken twice expires, a version number taken twice stays
unused.
"""

import asyncio
import time
from typing import Any, Protocol

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from core.errors import Overdue, Unavailable

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0


class Peer(Protocol):
    """Another part of the same run, wherever it lives."""

    async def call(self, method: str, *arguments: Any) -> Any: ...


class LocalPeer:
    """A part in this process, for run_local and tests."""

    def __init__(self, part: object) -> None:
        self._part = part

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._part, method)(*arguments)


class RayPeer:
    """An actor, looked up by name whenever it has to be."""

    def __init__(self, name: str, namespace: str, deadline_s: float = 60.0) -> None:
        self.name = name
        self._namespace = namespace
        self._deadline_s = deadline_s
        self._handle: Any = None

    async def call(self, method: str, *arguments: Any) -> Any:
        """Raises: Overdue when no answer came by the deadline, and whatever the method itself raises."""
        stop_at = time.monotonic() + self._deadline_s
        delay_s = FIRST_DELAY_S
        while True:
            try:
                return await self._attempt(method, arguments, stop_at - time.monotonic())
            except (RayActorError, ActorUnavailableError, Unavailable, ValueError) as error:
                if isinstance(error, ValueError) and not _is_missing_actor(error):
                    raise
                last = error
            except Overdue:  # of something that the other waited for
                raise
            except TimeoutError:
                raise Overdue(f"{self.name}.{method} did not answer within {self._deadline_s:.0f} s") from None
            if time.monotonic() + delay_s > stop_at:
                raise Overdue(f"{self.name}.{method} was out of reach for {self._deadline_s:.0f} s: {last}") from None
            self._handle = None
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _attempt(self, method: str, arguments: tuple[Any, ...], left_s: float) -> Any:
        if self._handle is None:
            self._handle = ray.get_actor(self.name, self._namespace)
        return await asyncio.wait_for(getattr(self._handle, method).remote(*arguments), max(left_s, 0.01))


def _is_missing_actor(error: ValueError) -> bool:
    return type(error) is ValueError and "Failed to look up actor" in str(error)
