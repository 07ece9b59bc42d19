"""What people ask of a running system: one status over all parts, what the status page shows, and the few commands.
Reached over HTTP."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray.exceptions import RayError

from actors.people.overview import Past, overview
from actors.runtime.rpc import Peer
from core.clock import Clock, SystemClock
from core.codec import encode_batch
from core.errors import ArtifactError, RatchetError, StoreError, VersionError
from core.messages import Vote

STATUS_WAIT_S = 2.0
COMMANDS = ("pause", "resume", "eval", "vote", "forget", "promote", "rollback", "hold", "release")


class Console:
    def __init__(self, parts: Mapping[str, Peer], questions: int, run_dir: str, clock: Clock | None = None) -> None:
        self._parts = dict(parts)
        self._questions = questions
        self._past = Past(Path(run_dir))
        self._reading = asyncio.Lock()
        self._clock = clock or SystemClock()

    async def start(self) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        async with self._reading:
            self._past.close()

    async def quiet_s(self) -> float:
        """An answer is all that tells that its loop turns."""
        return 0.0

    async def status(self) -> dict[str, Any]:
        """Every part's snapshot by its name; one that does not answer in time says so in its place."""
        names = list(self._parts)
        snapshots = await asyncio.gather(*(self._snapshot(name) for name in names))
        return dict(zip(names, snapshots, strict=True))

    async def overview(self) -> dict[str, Any]:
        """What the status page shows (see `actors.people.overview`). Of what cannot be read it says so in `away`."""
        status, past = await asyncio.gather(self.status(), self._read_past())
        return overview(self._clock.now(), status, past)

    async def command(self, name: str, argument: Any) -> dict[str, Any]:
        """What moves the served version takes `{"version": "v3", "by": who, "reason": why}`, all of it written down.

        Raises: RatchetError for a command that does not exist or cannot be done now."""
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
            case "vote":
                return {"votes": await self._parts["buffer"].call("vote", encode_batch(_votes(argument)))}
            case "forget":
                if not isinstance(argument, str) or not argument:
                    raise ArtifactError(f"forget takes the name of a voter or key, found {argument!r}")
                await self._parts["desk"].call("forget", argument)
                return await self._parts["buffer"].call("forget", argument)
            case "promote":
                return await self._parts["versions"].call("promote", _version(_named(argument)), *_signed(argument))
            case "rollback":
                # never "the served one": a gateway that asks twice would roll back twice
                return await self._parts["versions"].call("rollback", _version(_named(argument)), *_signed(argument))
            case "hold" | "release":
                return await self._parts["versions"].call(name, *_signed(argument))
        raise RatchetError(f"no command {name!r}; expected one of {', '.join(COMMANDS)}")

    async def _read_past(self) -> dict[str, Any]:
        async with self._reading:
            try:
                return await asyncio.to_thread(self._past.read)
            except StoreError as error:
                return {"away": {"run directory": str(error)}}

    async def _snapshot(self, name: str) -> dict[str, Any]:
        try:
            return await asyncio.wait_for(self._parts[name].call("status"), STATUS_WAIT_S)
        except (TimeoutError, RatchetError, RayError) as error:
            return {"away": str(error) or f"no answer within {STATUS_WAIT_S} s"}


def _named(argument: Any) -> Any:
    return argument.get("version") if isinstance(argument, dict) else argument


def _signed(argument: Any) -> tuple[str, str]:
    """Who asks, and why."""
    signed = argument if isinstance(argument, dict) else {}
    return str(signed.get("by") or "somebody over HTTP")[:200], str(signed.get("reason") or "no reason given")[:1000]


def _votes(argument: Any) -> list[Vote]:
    """Raises: ArtifactError naming what is wrong with the first bad one."""
    if not isinstance(argument, list):
        raise ArtifactError(f"expected a list of votes, got {type(argument).__name__}")
    try:
        return [Vote.model_validate(vote) for vote in argument]
    except ValidationError as error:
        raise ArtifactError(f"no valid vote: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None


def _version(argument: Any) -> int:
    """`v7` or `7`. Raises: VersionError."""
    digits = argument.removeprefix("v") if isinstance(argument, str) else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise VersionError(f"{argument!r} names no version; expected the form v7")
    return int(digits)
