"""A replica's calls to the actors of its run (see `core.proxy`). A call to an unavailable actor fails at once, because
the replica continues to serve without it."""

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import RayError

from core.errors import Overdue, RatchetError, Unavailable


class ActorCall:
    """Calls the port that `part` of an actor implements."""

    def __init__(self, namespace: str, actor: str, part: str = "") -> None:
        self._namespace = namespace
        self._actor = actor
        self._part = part
        self._handle: Any = None

    async def __call__(self, method: str, *arguments: Any, **settings: Any) -> Any:
        """Raises: Unavailable when the actor is away; the errors of the method."""
        try:
            if self._handle is None:  # a restarted actor keeps its handle
                self._handle = ray.get_actor(self._actor, self._namespace)
            return await self._handle.invoke.remote(self._part, method, *arguments, **settings)
        except RatchetError as error:
            raise getattr(error, "cause", error) from None  # without the stack trace of the actor
        except (ValueError, RayError) as error:
            self._handle = None
            away = f"the {self._actor} actor is not up ({type(error).__name__}); try again in a moment"
            raise Unavailable(away) from None

    async def found(self, patience_s: float) -> None:
        """Wait until the actor exists; it may still be starting. Raises: Overdue."""
        stop_at = time.monotonic() + patience_s
        while True:
            try:
                self._handle = await asyncio.to_thread(ray.get_actor, self._actor, self._namespace)
                return
            except (ValueError, RayError):  # RayError: Ray's head is away too
                if time.monotonic() > stop_at:
                    why = f"no {self._actor} actor in {self._namespace} within {patience_s:.0f} s; see driver.log"
                    raise Overdue(why) from None
            await asyncio.sleep(0.2)
