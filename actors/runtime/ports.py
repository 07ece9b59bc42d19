"""The calls between the parts of a run: one Protocol per part and caller, with its argument and result types.

The class that implements a port names it as its base, so that an editor can jump from a call to the implementation.
`actors.runtime.rpc` builds an object with a port's methods from an actor's name. It repeats a call when the answer is
lost, so each method must be safe to repeat.

    store       StorePort
    buffer      LeasePort (collectors), WindowPort (trainer, versions), BallotPort and LearningPort (people)
    versions    ReplicaPort, TrainerPort, GatePort (evaluator), ServingPort (people)
    evaluator   MeasurePort (people)
    feedback    FeedbackPort (replicas)
    admin       AdminPort (replicas)
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict

from actors.runtime.statuses import BufferStatus, EvaluatorStatus, StoreStatus, VersionsStatus
from core.messages import (
    Decision,
    Lease,
    Message,
    Outcome,
    PolicyRef,
    Prompt,
    Published,
    Resettle,
    Scored,
    Vote,
    Window,
)
from core.store.encoded import EncodedOutcome
from core.store.facts import GateLedger, Measured, Watched
from core.store.records import Row
from serve.replica.ports import AdminPort, FeedbackPort, ReplicaPort

__all__ = ["AdminPort", "FeedbackPort", "ReplicaPort"]
"""The ports that replicas call are declared in `serve`, because `serve` may not import `actors`."""


class Part(Protocol):
    """The methods of every actor that the supervisor calls."""

    async def start(self) -> None:
        """Do the heavy work of starting, so that a failure reaches the caller."""
        ...

    async def run(self) -> None:
        """Work until cancelled. Returning is an error."""
        ...

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """Seconds since its work last made progress; 0 while it has no work."""
        ...


# --- store ---


class StorePort(Protocol):
    async def append(self, records: Sequence[Row]) -> int:
        """Write all records or none. Returns their number once they are on disk. A record written before changes
        nothing.

        Raises: StorageFull, then nothing was written; StoreError."""
        ...

    async def remove(self, ids: Mapping[str, Sequence[str]]) -> int:
        """Remove rows by table and id, all or none; returns how many existed. Raises: StoreError."""
        ...

    async def status(self) -> StoreStatus: ...


# --- buffer ---


class LeasePort(Protocol):
    """The buffer, as collectors call it."""

    async def lease(self, wanted: int, wait_s: float, token: str = "") -> Lease | None:
        """Lease up to `wanted` places as soon as backpressure allows one; None after `wait_s`. A repeated `token`
        returns the same lease while that lease runs."""
        ...

    async def deliver(self, outcomes: Sequence[EncodedOutcome]) -> list[str]:
        """Take outcomes in. Returns for each `accepted`, `filtered`, `failed`, `duplicate`, `stale` or `expired`. All
        but the expired are on disk when this returns. Delivering again changes nothing."""
        ...

    async def votes_on(self, prompt_id: str) -> tuple[int, list[Vote]]:
        """The number of people's votes that count on this prompt, and the votes."""
        ...

    async def earlier(self, prompt_id: str, place: int) -> list[Scored]:
        """Judgments of this prompt at other places, oldest first; of the newest explorations only."""
        ...

    async def resettle(self, wait_s: float) -> Resettle | None:
        """An explored prompt to settle again because people voted on it; None after `wait_s`."""
        ...

    async def resettled(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Take outcomes of `resettle` in. Returns for each `replaced`, `failed`, `late` (no window can use it any more)
        or `expired`. The replaced ones are on disk when this returns."""
        ...


class WindowPort(Protocol):
    """The buffer, as the trainer and versions call it."""

    async def draw(self, after: int, newest: int, wait_s: float) -> Window | None:
        """The window after number `after`: a new one once the buffer has enough examples, or the one drawn before if a
        trainer died over it. None after `wait_s`, and while the store has not acknowledged the window. `newest` is the
        version in the explore slot: staleness is counted from it."""
        ...

    async def published(self, version: int) -> None:
        """A version was published: staleness counts it from now on."""
        ...

    async def decided(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        """The candidate trained on this window is decided, or there is none (version 0). If it is rejected, or rolled
        back after a promotion, its samples are quarantined. The store already holds the decision on a candidate, so
        this call does not wait for the disk."""
        ...


class Forgotten(TypedDict):
    votes: int
    rows: int
    versions: list[int]
    """Versions that learned from the removed votes."""


class BallotPort(Protocol):
    """The buffer, as the actors for people call it."""

    async def vote(self, votes: Sequence[Vote], beside: Sequence[Row] = ()) -> list[str]:
        """Take votes of people or verifiers in; they are on disk when this returns. Returns for each `counted` (the
        prompt is settled again), `waiting` (until the prompt is explored), `left_out` (stored, but over the voter's
        budget) or `duplicate` (of its id). The rows in `beside`, the feedback behind the votes, are written in the same
        transaction.

        Raises: ArtifactError for any other vote; then nothing of the batch is stored."""
        ...

    async def ask(self, prompts: Sequence[Prompt]) -> int:
        """Queue prompts that people asked for exploration; they are on disk when this returns. Returns how many are
        new. Prompts beyond `method.votes.asked_room` are dropped."""
        ...

    async def forget(self, name: str) -> Forgotten:
        """Remove the votes, feedback and answers of a voter, or of a key and all its users. The prompts with such votes
        are settled again. Versions keep what they have learned; the result names them."""
        ...


class LearningPort(Protocol):
    """The buffer: pause, resume and status of learning."""

    async def pause(self, reason: str) -> None:
        """Stop leases and draws until `resume`, also over restarts. Deliveries are still accepted."""
        ...

    async def resume(self) -> None: ...

    async def status(self) -> BufferStatus: ...


# --- versions ---


class TrainerPort(Protocol):
    """Versions, as the trainer calls it."""

    async def node(self) -> str: ...

    async def found(self, base: Published, node: str = "") -> None:
        """Register the base, which the trainer has described on its node. Replicas wait for it."""
        ...

    async def parent(self) -> Published:
        """The version to continue training from: the newest that was not rejected."""
        ...

    async def last_window(self) -> int:
        """The newest window that a published version was trained on; 0 before the first."""
        ...

    async def stands(self, version: int) -> bool:
        """Whether a version was neither rejected nor rolled back. What was trained from one that was is rejected."""
        ...

    async def learning_rate_scale(self) -> float:
        """Factor for the configured learning rate; below 1 after several rejections in a row."""
        ...

    async def newest(self) -> int:
        """The version in the explore slot: staleness is counted from it."""
        ...

    async def take_ref(self) -> PolicyRef:
        """A number for the next version, never returned twice."""
        ...

    async def described(self, version: int) -> Published | None:
        """A version by its number, with its folder; None if it is unknown or pruned."""
        ...

    async def propose(self, published: Published, node: str = "") -> None:
        """Register a new version, whose files are on the trainer's node. Proposing it again changes nothing.

        Raises: Unavailable if its files cannot be copied here now; StorageFull; ArtifactError if they are damaged."""
        ...


class Pairing(Message):
    """The next candidate, and the champion to weigh it against."""

    candidate: PolicyRef
    champion: PolicyRef
    ledger: GateLedger


class GatePort(Protocol):
    """Versions, as the evaluator calls it."""

    async def next_candidate(self, wait_s: float) -> Pairing | None:
        """The oldest proven undecided version, with the champion to weigh it against; None after `wait_s`."""
        ...

    async def decide(self, decision: Decision, ledger: GateLedger, watch: Watched | None = None) -> bool:
        """Apply the gate's decision, and store it with the gate's ledger and the watch that it starts. False if the
        decision was dropped because the version was decided meanwhile (its parent was rejected or rolled back). The
        same decision again changes nothing.

        Raises: Unavailable while replicas prove the version again, after a restart of versions."""
        ...

    async def weighed(self) -> None:
        """The evaluator has finished a candidate, including its crowning. Pauses learning on a plateau."""
        ...

    async def pause(self, reason: str) -> None:
        """Pause learning; serving goes on."""
        ...

    async def crown(self, version: int, over: int, ledger: GateLedger) -> None:
        """Make a promoted version the champion in place of `over`, which it was shown to be better than: now, or when a
        hold ends. Nothing changes if one of the two was rolled back meanwhile."""
        ...

    async def call_back(self, version: int, reason: str) -> None:
        """Roll back the served version because a watch found it worse: users get the champion again, after a hold if
        there is one."""
        ...

    async def reported(self, version: int) -> None:
        """The report on this version is finished; replicas may unload the version."""
        ...

    async def status(self) -> VersionsStatus: ...


class Moved(TypedDict):
    """The served version after a command by hand, and before it."""

    serve: int
    before: int


class Served(TypedDict):
    serve: int


class Released(TypedDict):
    serve: int
    took_effect: int | None


class ServingPort(Protocol):
    """Versions, as the admin actor calls it. `by` and `why` go into the run's history."""

    async def promote(self, version: int, by: str, why: str) -> Moved:
        """Serve a proven version regardless of the gate's verdict. Raises: VersionError."""
        ...

    async def rollback(self, version: int, by: str, why: str) -> Moved:
        """Stop serving a version. Only a promotion by hand can bring it back. Raises: VersionError."""
        ...

    async def hold(self, by: str, why: str) -> Served:
        """Keep the served version until `release`. Raises: VersionError if serving is already held."""
        ...

    async def release(self, by: str, why: str) -> Released:
        """End the hold; decisions made during it take effect. Raises: VersionError if serving is not held."""
        ...

    async def forget_plateau(self) -> None:
        """Learning was resumed by hand: reset the counts of candidates without gain and of rejections."""
        ...

    async def status(self) -> VersionsStatus: ...


# --- the others ---


class HasStatus(Protocol):
    async def status(self) -> Mapping[str, object]: ...


class MeasurePort(Protocol):
    """The evaluator, as the admin actor and the final report call it."""

    async def status(self) -> "EvaluatorStatus": ...

    async def measure(self, version: int, questions: int) -> Measured:
        """Greedy accuracy of a loaded version on the first `questions` report questions.

        Raises: ConfigError if the run has no report questions."""
        ...

    async def measure_other_tasks(self, version: int) -> None:
        """The same on the tasks that the run does not learn, stored as `OtherMeasured`."""
        ...
