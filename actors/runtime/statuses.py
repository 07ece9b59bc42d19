"""What every part says of itself: one TypedDict a part."""

from typing import TypedDict


class Away(TypedDict, total=False):
    """Takes the place of a status when a part does not answer. No other status has this key."""

    away: str


class FullDisk(TypedDict):
    since: float
    why: str
    remedy: str


class StoreStatus(Away):
    writes: int
    commits: int
    free_bytes: int
    room_for_s: float | None
    """Seconds for which there has been room again on a disk that was full; None if it was never full."""
    forgotten_groups: int
    full: FullDisk | None


class BufferStatus(Away):
    paused: str | None
    paused_at: float | None
    paused_before_start: bool
    paused_itself: bool
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


class TrainerStatus(Away):
    phase: str
    step: int
    """Steps done of the version in training; 0 before the first."""
    steps: int
    at: int | None
    idle_s: float


class CollectorStatus(Away):
    in_flight: int
    explored: int
    resettled: int
    idle_s: float
    tokens: dict[str, int]


class WeighingStatus(TypedDict):
    candidate: int
    champion: int


class AnchorsStatus(TypedDict):
    """The making of the run's anchors."""

    answered: int
    questions: int
    left_s: float | None
    """Seconds left at the speed so far; None before the first answer."""


class RatesStatus(TypedDict, total=False):
    """From the previous verdict; absent before the first."""

    candidate_rate: float
    champion_rate: float
    saturated: bool


class MonitorsStatus(TypedDict, total=False):
    """Of the newest version that was measured on the report's questions; see `core.store.facts.Measured`."""

    flexible_ratio: float
    entropy_nats: float
    distinct_2_ratio: float
    sampled_ratio: float
    pass_n_ratio: float
    gap: float


class EvaluatorStatus(Away, RatesStatus, MonitorsStatus):
    weighing: WeighingStatus | None
    anchors: AnchorsStatus | None
    """None once they are made."""
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
