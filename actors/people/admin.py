"""The admin actor, behind the HTTP admin routes: the status of all parts, the data of the status page, and the
commands."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError
from ray.exceptions import RayError

from actors.people.overview import Past, PastSaid, overview
from actors.runtime.ports import (
    AdminPort,
    BallotPort,
    FeedbackPort,
    HasStatus,
    LearningPort,
    MeasurePort,
    Part,
    ServingPort,
    StorePort,
)
from actors.runtime.statuses import RunStatus
from core.clock import Clock, SystemClock
from core.errors import ArtifactError, RatchetError, StoreError, VersionError
from core.messages import Vote

STATUS_WAIT_S = 2.0
COMMANDS = ("pause", "resume", "eval", "vote", "forget", "promote", "rollback", "hold", "release")


@dataclass(frozen=True)
class Ports:
    """The parts with a status, and the parts that carry out commands."""

    store: StorePort
    versions: ServingPort
    ballot: BallotPort
    learning: LearningPort
    feedback: FeedbackPort
    trainer: HasStatus
    evaluator: MeasurePort

    def by_name(self) -> dict[str, HasStatus]:
        return {
            "store": self.store,
            "versions": self.versions,
            "buffer": self.learning,
            "feedback": self.feedback,
            "trainer": self.trainer,
            "evaluator": self.evaluator,
        }


class Admin(Part, AdminPort):
    def __init__(
        self,
        ports: Ports,
        questions: int,
        run_dir: str,
        clock: Clock | None = None,
        examples: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """`questions`: number of report questions that the `eval` command asks. `examples`: the turns before each
        question of the task."""
        self._ports = ports
        self._examples = [dict(turn) for turn in examples]
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
        """0: the answer itself shows that the event loop runs."""
        return 0.0

    async def status(self) -> RunStatus:
        parts = self._ports.by_name()
        snapshots = await asyncio.gather(*(_snapshot(part) for part in parts.values()))
        return cast(RunStatus, dict(zip(parts, snapshots, strict=True)))

    async def overview(self) -> dict[str, object]:
        status, past = await asyncio.gather(self.status(), self._read_past())
        return {**overview(self._clock.now(), status, past), "examples": self._examples}

    async def command(self, name: str, argument: object) -> Mapping[str, object]:
        ports = self._ports
        match name:
            case "pause":
                await ports.learning.pause(str(argument or "paused by hand"))
                return {"paused": True}
            case "resume":
                await ports.versions.forget_plateau()
                await ports.learning.resume()
                return {"paused": False}
            case "eval":
                return (await ports.evaluator.measure(_version(argument), self._questions)).model_dump()
            case "vote":
                return {"votes": await ports.ballot.vote(_votes(argument))}
            case "forget":
                if not isinstance(argument, str) or not argument:
                    raise ArtifactError(f"forget takes the name of a voter or a key, got {argument!r}")
                await ports.feedback.forget(argument)
                return await ports.ballot.forget(argument)
            case "promote":
                return await ports.versions.promote(_version(_named(argument)), *_signed(argument))
            case "rollback":
                # the version is required: with a default, a client that retries would roll back two versions
                return await ports.versions.rollback(_version(_named(argument)), *_signed(argument))
            case "hold":
                return await ports.versions.hold(*_signed(argument))
            case "release":
                return await ports.versions.release(*_signed(argument))
        raise RatchetError(f"no command {name!r}; expected one of {', '.join(COMMANDS)}")

    async def _read_past(self) -> PastSaid:
        async with self._reading:
            try:
                return await asyncio.to_thread(self._past.read)
            except StoreError as error:
                return {"away": {"run directory": str(error)}}


async def _snapshot(part: HasStatus) -> Mapping[str, object]:
    try:
        return await asyncio.wait_for(part.status(), STATUS_WAIT_S)
    except (TimeoutError, RatchetError, RayError) as error:
        return {"away": str(error) or f"no answer within {STATUS_WAIT_S} s"}


def _named(argument: object) -> object:
    return cast(dict[str, object], argument).get("version") if isinstance(argument, dict) else argument


def _signed(argument: object) -> tuple[str, str]:
    """The name of the caller, and the reason."""
    signed = cast(dict[str, object], argument) if isinstance(argument, dict) else dict[str, object]()
    return str(signed.get("by") or "somebody over HTTP")[:200], str(signed.get("reason") or "no reason given")[:1000]


def _votes(argument: object) -> list[Vote]:
    """Raises: ArtifactError with the first error found."""
    if not isinstance(argument, list):
        raise ArtifactError(f"expected a list of votes, got {type(argument).__name__}")
    try:
        return [Vote.model_validate(vote) for vote in cast(list[object], argument)]
    except ValidationError as error:
        raise ArtifactError(f"invalid vote: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None


def _version(argument: object) -> int:
    """`v7` or `7`. Raises: VersionError."""
    digits = argument.removeprefix("v") if isinstance(argument, str) else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise VersionError(f"{argument!r} is not a version; expected the form v7")
    return int(digits)
