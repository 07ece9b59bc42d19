"""What the parts of a run ask of each other: one Protocol for each caller of each part, with the messages between.

The class that carries a port out names it as its base, so that an editor leads from a call to the method behind it.
`actors.runtime.rpc` makes an object with a port's methods out of an actor's name. Calls are repeated when an answer is
lost, so each method is safe to repeat.

    store       StorePort
    buffer      LeasePort (collectors), WindowPort (trainer, versions), BallotPort and LearningPort (people)
    versions    ReplicaPort, TrainerPort, GatePort (evaluator), ServingPort (people)
    evaluator   MeasurePort (people)
    feedback    FeedbackPort (replicas)
    admin       AdminPort (replicas)
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict

from core.messages import (
    Decision,
    Lease,
    Message,
    Outcome,
    PolicyRef,
    Prompt,
    Published,
    Resettle,
    Vote,
    Window,
)
from core.store.encoded import EncodedOutcome
from core.store.facts import GateLedger, Measured, Watched
from core.store.records import Row
from serve.replica.ports import AdminPort, FeedbackPort, ReplicaPort

__all__ = ["AdminPort", "FeedbackPort", "ReplicaPort"]
"""What replicas ask is declared in `serve`, which may not import from here."""


class Part(Protocol):
    """What the supervisor asks of every actor."""

    async def start(self) -> None:
        """Heavy work, so that failure reaches the caller."""
        ...

    async def run(self) -> None:
        """Until cancelled; an end is an error."""
        ...

    async def stop(self) -> None: ...

    async def quiet_s(self) -> float:
        """Seconds since its work last moved on; 0 while it has none."""
        ...


class Away(TypedDict, total=False):
    """In the place of a status, of a part that does not answer; and a key that no other status has."""

    away: str


# --- store ---


class FullDisk(TypedDict):
    since: float
    why: str
    remedy: str


class StoreStatus(Away):
    writes: int
    commits: int
    free_bytes: int
    room_for_s: float | None
    """Since when there is room again on a disk that was full."""
    forgotten_groups: int
    full: FullDisk | None


class StorePort(Protocol):
    async def append(self, records: Sequence[Row]) -> int:
        """Write all or none; returns how many were given, once they are on disk; one written before changes nothing.

        Raises: StorageFull, and then nothing was written; StoreError."""
        ...

    async def remove(self, ids: Mapping[str, Sequence[str]]) -> int:
        """Rows by table and id, all or none; how many there were. Raises: StoreError."""
        ...

    async def status(self) -> StoreStatus: ...


# --- buffer ---


class LeasePort(Protocol):
    """Of the buffer, for collectors."""

    async def lease(self, wanted: int, wait_s: float, token: str = "") -> Lease | None:
        """Up to `wanted` places to explore, as soon as there is any room; None after `wait_s`. The same `token` gives
        the same lease again, for as long as it runs."""
        ...

    async def deliver(self, outcomes: Sequence[EncodedOutcome]) -> list[str]:
        """Take outcomes in; each is `accepted`, `filtered`, `failed`, `duplicate`, `stale` or `expired`. All but the
        expired are on disk when this returns. To deliver again changes nothing."""
        ...

    async def votes_on(self, prompt_id: str) -> tuple[int, list[Vote]]:
        """How many votes of people count on this prompt, and the votes."""
        ...

    async def resettle(self, wait_s: float) -> Resettle | None:
        """An explored prompt to settle again because people voted on it; None after `wait_s`."""
        ...

    async def resettled(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Take outcomes of `resettle` in; each is `replaced`, `failed`, `late` (no window takes it any more) or
        `expired`. The replaced are on disk when this returns."""
        ...


class WindowPort(Protocol):
    """Of the buffer, for trainer and versions."""

    async def draw(self, after: int, newest: int, wait_s: float) -> Window | None:
        """The window after number `after`: drawn now if it is full, or again if a trainer died over it; None after
        `wait_s`, and while the store has not acknowledged it. `newest` is the version in the explore slot, from which
        staleness is counted."""
        ...

    async def published(self, version: int) -> None:
        """Staleness counts one version more."""
        ...

    async def decided(self, window: int, version: int, rejected: bool, discarded: bool) -> None:
        """The candidate made of this window is decided. The samples of a rejected one are quarantined, also of one that
        was promoted and is rolled back. The store's decisions say the same, so this waits for no disk."""
        ...


class Forgotten(TypedDict):
    votes: int
    rows: int
    versions: list[int]
    """Versions that learned with what is removed now."""


class BallotPort(Protocol):
    """Of the buffer, for people."""

    async def vote(self, votes: Sequence[Vote], beside: Sequence[Row] = ()) -> list[str]:
        """Take votes of people or verifiers in, on disk when this returns: `counted` (the prompt is settled again),
        `waiting` (until it is explored), `left_out` (kept, over the voter's budget) or `duplicate` by its id. Rows
        `beside` them, the feedback that the votes come from, are written with them.

        Raises: ArtifactError for anything else than such a vote; nothing of the batch was kept then."""
        ...

    async def ask(self, prompts: Sequence[Prompt]) -> int:
        """Explore prompts that people asked, on disk when this returns; how many of them are new. Those beyond
        `method.votes.asked_room` are left out."""
        ...

    async def forget(self, name: str) -> Forgotten:
        """Remove what came from a voter, or from a key and all its users: votes, feedback and answers. The prompts that
        they voted on are settled again without them; versions keep what they have learned, and are named."""
        ...


class BufferStatus(Away):
    paused: str | None
    paused_at: float | None
    paused_before_start: bool
    waiting: int
    examples: int
    windows_drawn: int
    windows_decided: int
    capacity: int
    leased: int
    outstanding: int
    accepted: int
    filtered: int
    failed: int
    expired: int
    quarantined: int
    stale_examples: int
    lag: int
    vote_share: float | None
    tokens: int
    person_votes: int
    person_votes_left_out: int
    prompts_voted: int
    prompts_voted_waiting: int
    to_resettle: int
    resettled: int
    asked: int
    owed: int


class LearningPort(Protocol):
    """Of the buffer: whether learning goes on."""

    async def pause(self, reason: str) -> None:
        """No more leases and draws until `resume`, over restarts; deliveries are still taken."""
        ...

    async def resume(self) -> None: ...

    async def status(self) -> BufferStatus: ...


# --- versions ---


class ReplicaStatus(TypedDict, total=False):
    serving: int
    proven: list[int]
    epoch: int
    failed: dict[str, str]
    age_s: float
    tokens_user: float
    users: float
    background: float
    background_waiting: float
    background_limit: float
    swaps: float
    pause_ms: float


class SlotVersions(TypedDict):
    serve: int
    explore: int
    champion: int
    candidate: int | None


class HoldStatus(TypedDict):
    by: str
    why: str
    at: float


class VersionsStatus(Away):
    owed: int
    slots: SlotVersions
    epoch: int
    states: dict[str, str]
    decided: int
    without_gain: int
    standing: str
    rejections: int
    learning_rate_scale: float
    held: HoldStatus | None
    waiting: int | None
    reporting: list[int]
    replicas: dict[str, ReplicaStatus]


class TrainerPort(Protocol):
    """Of versions, for the trainer."""

    async def node(self) -> str: ...

    async def found(self, base: Published, node: str = "") -> None:
        """The trainer has described the base on its node; replicas wait for it."""
        ...

    async def parent(self) -> Published:
        """The version to train on from: the newest that was not rejected."""
        ...

    async def last_window(self) -> int:
        """The newest window that a version was trained on; 0 before the first."""
        ...

    async def learning_rate_scale(self) -> float:
        """Below 1 after several rejections in a row."""
        ...

    async def newest(self) -> int:
        """The version in the explore slot: staleness is counted from it."""
        ...

    async def take_ref(self) -> PolicyRef:
        """A number for the next version, never given twice."""
        ...

    async def described(self, version: int) -> Published | None:
        """A version by its number, with its folder; None when it is unknown, or pruned."""
        ...

    async def propose(self, published: Published, node: str = "") -> None:
        """A new version stands on the disk of its trainer's node. To propose it again changes nothing.

        Raises: Unavailable when it cannot be brought here now; StorageFull; ArtifactError when it is damaged there."""
        ...


class Pairing(Message):
    """The next candidate, and what to weigh it against."""

    candidate: PolicyRef
    champion: PolicyRef
    ledger: GateLedger


class GatePort(Protocol):
    """Of versions, for the evaluator."""

    async def next_candidate(self, wait_s: float) -> Pairing | None:
        """The oldest proven undecided version with the champion to weigh it against, or None after `wait_s`."""
        ...

    async def decide(self, decision: Decision, ledger: GateLedger, watch: Watched | None = None) -> bool:
        """The gate's word, on disk together with its ledger and the watch that it begins. False when it was dropped,
        because the version was decided meanwhile (its parent fell). The same word again changes nothing.

        Raises: Unavailable while the version is proven anew, after versions died."""
        ...

    async def weighed(self) -> None:
        """The evaluator is done with a candidate, crown included: does learning still gain anything?"""
        ...

    async def crown(self, version: int, over: int, ledger: GateLedger) -> None:
        """A promoted version was shown to be better than the champion `over`, and takes its place, now or when a hold
        ends. It does not when one of the two was rolled back meanwhile."""
        ...

    async def call_back(self, version: int, reason: str) -> None:
        """A watch found the served version worse: users get the champion again, after the hold if there is one."""
        ...

    async def reported(self, version: int) -> None:
        """The report on this version is done; replicas may unload it."""
        ...

    async def status(self) -> VersionsStatus: ...


class Moved(TypedDict):
    """The served version after a command of a person, and before it."""

    serve: int
    before: int


class Served(TypedDict):
    serve: int


class Released(TypedDict):
    serve: int
    took_effect: int | None


class ServingPort(Protocol):
    """Of versions, for people. `by` and `why` are written into the run's history."""

    async def promote(self, version: int, by: str, why: str) -> Moved:
        """Serve a proven version whatever the gate said. Raises: VersionError."""
        ...

    async def rollback(self, version: int, by: str, why: str) -> Moved:
        """Stop serving a version, for good unless it is promoted by hand again. Raises: VersionError."""
        ...

    async def hold(self, by: str, why: str) -> Served:
        """Nothing is activated until `release`. Raises: VersionError when it is held already."""
        ...

    async def release(self, by: str, why: str) -> Released:
        """End the hold; what was decided meanwhile takes effect. Raises: VersionError when nothing is held."""
        ...

    async def forget_plateau(self) -> None:
        """Learning was resumed by hand: count anew, rejections too."""
        ...

    async def status(self) -> VersionsStatus: ...


# --- the others ---


class TrainerStatus(Away):
    phase: str
    at: int | None
    idle_s: float


class CollectorStatus(Away):
    in_flight: int
    explored: int
    resettled: int
    idle_s: float
    tokens: dict[str, int]


class HasStatus(Protocol):
    async def status(self) -> Mapping[str, object]: ...


class MeasurePort(Protocol):
    """Of the evaluator, for people and the final report."""

    async def status(self) -> "EvaluatorStatus": ...

    async def measure(self, version: int, questions: int) -> Measured:
        """Greedy accuracy of a loaded version on so many report questions.

        Raises: ConfigError when the run has no report questions."""
        ...


class WeighingStatus(TypedDict):
    candidate: int
    champion: int


class RatesStatus(TypedDict, total=False):
    """Of the verdict before; absent before the first."""

    candidate_rate: float
    champion_rate: float
    saturated: bool


class EvaluatorStatus(Away, RatesStatus):
    weighing: WeighingStatus | None
    idle_s: float
    watching: int | None
    probes: int
    tokens: dict[str, int]


class FeedbackStatus(Away):
    responses: int


class RunStatus(TypedDict, total=False):
    """Every part's status by its name."""

    store: StoreStatus
    versions: VersionsStatus
    buffer: BufferStatus
    feedback: FeedbackStatus
    trainer: TrainerStatus
    evaluator: EvaluatorStatus
