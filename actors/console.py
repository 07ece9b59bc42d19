"""What people ask of a running system: one status over all parts, and the few commands. Reached over HTTP."""

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError

from actors.calls import Peer
from core.errors import RatchetError, VersionError

STATUS_WAIT_S = 2.0
COMMANDS = ("pause", "resume", "eval")


class Console:
    def __init__(self, parts: Mapping[str, Peer], questions: int) -> None:
        self._parts = dict(parts)
        self._questions = questions

    async def start(self) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None: ...

    async def status(self) -> dict[str, Any]:
        """Every part's snapshot by its name; one that does not answer in time says so in its place."""
        names = list(self._parts)
        snapshots = await asyncio.gather(*(self._snapshot(name) for name in names))
        return dict(zip(names, snapshots, strict=True))

    async def command(self, name: str, argument: str | None) -> dict[str, Any]:
        """Raises: RatchetError for a command that does not exist or cannot be done now."""
        match name:
            case "pause":
                await self._parts["buffer"].call("pause", argument or "paused by hand")
                return {"paused": True}
            case "resume":
                await self._parts["versions"].call("forget_plateau")
                await self._parts["buffer"].call("resume")
                return {"paused": False}
            case "eval":
                return await self._parts["evaluator"].call("measure", _version(argument), self._questions)
        raise RatchetError(f"no command {name!r}; expected one of {', '.join(COMMANDS)}")

    async def _snapshot(self, name: str) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(self._parts[name].call("status"), STATUS_WAIT_S)
        except (TimeoutError, RatchetError, RayError) as error:
            return {"away": str(error) or f"no answer within {STATUS_WAIT_S} s"}


def _version(argument: str | None) -> int:
    """`v7` or `7`. Raises: VersionError."""
    digits = (argument or "").removeprefix("v")
    if not digits.isdecimal():
        raise VersionError(f"{argument!r} names no version; expected the form v7")
    return int(digits)
