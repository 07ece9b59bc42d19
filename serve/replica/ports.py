"""What a replica asks of the rest of the run. `actors` carries these ports out."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from core.errors import RatchetError
from core.messages import Published, ReplicaReport, Slots
from serve.http.feedback import LATE_S, Results, Submission


class ReplicaPort(Protocol):
    """Of versions, for the replicas of the policy service."""

    async def base(self, wait_s: float) -> Published:
        """Version 0. Raises: Overdue when the trainer has not described it by then."""
        ...

    async def desired(self, seen_epoch: int, wait_s: float) -> Slots:
        """The desired state, as soon as it is newer than the epoch seen, or after `wait_s`."""
        ...

    async def report(self, report: ReplicaReport) -> None:
        """Take a replica's report in; a version that all fresh replicas of its pool hold is proven."""
        ...

    async def trouble(self, replica: str, kind: str, why: str) -> None:
        """A replica says what is about to end it."""
        ...


class FeedbackPort(Protocol):
    """Of feedback, for replicas and admin."""

    async def answered(self, bodies: Sequence[Mapping[str, object]]) -> None:
        """Write down answers that users got: fields of a Response, with `messages` in place of its prompt."""
        ...

    async def feedback(
        self, requests: Sequence[Submission], wait_s: float = LATE_S
    ) -> Sequence[Results | RatchetError]:
        """Take feedback in, each request all or nothing, on disk when this returns. For each feedback its result, as
        `BallotPort.vote` gives it, or `kept` where it casts no vote; or why its request was refused: Missing for a
        response that does not exist or belongs to another key, ArtifactError for a choice that it does not have. All
        wait up to `wait_s` for a response that is not here yet."""
        ...

    async def page(self, key: str, after: int, limit: int) -> dict[str, object]:
        """A key's own feedback, oldest first; `next` is the `after` of the next page, or None."""
        ...

    async def forget(self, name: str) -> None:
        """Drop the answers to a voter, or to a key with all its users, from memory; the buffer removes the store's."""
        ...

    async def status(self) -> Mapping[str, object]: ...


class AdminPort(Protocol):
    """Of admin, for replicas, which pass on what people ask over HTTP, and for the driver."""

    async def status(self) -> Mapping[str, object]:
        """Every part's status by its name. A part that does not answer in time says so in its place."""
        ...

    async def overview(self) -> dict[str, object]:
        """What the status page shows (see `actors.people.overview`)."""
        ...

    async def command(self, name: str, argument: object) -> Mapping[str, object]:
        """The commands that move the served version take `{"version": "v3", "by": name, "reason": why}`, all of it
        written down.

        Raises: RatchetError for a command that does not exist or cannot be done now."""
        ...
