"""The ports through which a replica calls the actors of its run. `actors` implements them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from core.errors import RatchetError
from core.messages import Published, ReplicaReport, Slots
from serve.http.feedback import LATE_S, Results, Submission


class ReplicaPort(Protocol):
    """The versions actor's port for replicas."""

    async def base(self, wait_s: float) -> Published:
        """Version 0. Raises: Overdue when the trainer has not described it within `wait_s`."""
        ...

    async def desired(self, seen_epoch: int, wait_s: float) -> Slots:
        """The desired state, as soon as its epoch is newer than `seen_epoch`, or after `wait_s`."""
        ...

    async def report(self, report: ReplicaReport) -> None:
        """Record a replica's report. A version is proven when all replicas of its pool with a recent report hold it."""
        ...

    async def trouble(self, replica: str, kind: str, why: str) -> None:
        """Record the problem that is about to end a replica."""
        ...


class FeedbackPort(Protocol):
    """The feedback actor's port for replicas and admin."""

    async def answered(self, bodies: Sequence[Mapping[str, object]]) -> None:
        """Store answers that users got: fields of a Response, with `messages` in place of its prompt."""
        ...

    async def feedback(
        self, requests: Sequence[Submission], wait_s: float = LATE_S
    ) -> Sequence[Results | RatchetError]:
        """Store feedback; each request is accepted whole or refused whole, and is on disk when this returns.

        Returns for each request the results of its feedback: as from `BallotPort.vote`, or `kept` if it casts no vote.
        For a refused request returns the error: Missing for a response that does not exist or belongs to another key,
        ArtifactError for a choice that the response does not have. All requests wait up to `wait_s` for responses that
        are not recorded yet."""
        ...

    async def page(self, key: str, after: int, limit: int) -> dict[str, object]:
        """A key's own feedback, oldest first. `next` is the `after` of the next page, or None."""
        ...

    async def forget(self, name: str) -> None:
        """Drop the answers to a voter, or to a key with all its users, from memory. The buffer deletes them on disk."""
        ...

    async def status(self) -> Mapping[str, object]: ...


class AdminPort(Protocol):
    """The admin actor's port for the driver, and for replicas, which forward HTTP requests."""

    async def status(self) -> Mapping[str, object]:
        """The status of every part by its name. A part that does not answer in time has an entry that says so."""
        ...

    async def overview(self) -> dict[str, object]:
        """The data of the status page (see `actors.people.overview`)."""
        ...

    async def command(self, name: str, argument: object) -> Mapping[str, object]:
        """Run a command. Commands that move the served version take `{"version": "v3", "by": name, "reason": why}`, and
        all of it is recorded.

        Raises: RatchetError for a command that does not exist or is not possible now."""
        ...
