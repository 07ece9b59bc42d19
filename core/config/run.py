from typing import Literal

from pydantic import Field

from core.config.part import Part


class CollectConfig(Part):
    collectors: int = Field(default=1, ge=1)
    in_flight: int = Field(default=24, ge=1)
    """Prompts that one collector has under way at once. They go to the policy in batches that come back whole: three
    times what its seats hold keeps them taken."""


class ClusterConfig(Part):
    """Which nodes do what, where there are several (`up --address`). A node offers places by custom resources of Ray,
    as `ray start --resources '{"serving": 1}'`; each part that has a name here takes one place. Bookkeeping stays with
    the process that was started, where the run directory is."""

    serving: str | None = None
    """Resource that each replica takes one of. None: any node with room."""
    training: str | None = None
    """Resource that the trainer takes one of. None: any node with room."""
    collecting: str | None = None
    """Resource that each collector takes one of. None: any node with room."""
    replica_gpus: float | None = Field(default=None, ge=0)
    """GPUs of each replica. None: as there are at the start, which does not see nodes that are yet to come."""
    trainer_gpus: float | None = Field(default=None, ge=0)
    """GPUs of the trainer. None: as for `replica_gpus`."""


class RetentionConfig(Part):
    """What a run that goes on for weeks throws away. Votes of people, decisions, events and what no window has drawn
    are never thrown away."""

    versions: int | None = Field(default=32, ge=2)
    """So many of the newest promoted versions, and so many of the newest others with a verdict, keep their folder;
    what is served, compared with, trained from, measured or undecided keeps it anyway. None keeps all."""
    windows: int | None = Field(default=64, ge=1)
    """Newest windows whose groups, examples and sample votes are kept; never fewer than replay can need. None: all."""
    responses: int | None = Field(default=100_000, ge=1)
    """Newest answers of users that can be voted on; those before are thrown away. None keeps all."""
    metrics_bytes: int = Field(default=64 * 2**20, ge=2**12)
    """metrics.jsonl is moved to metrics.jsonl.1, over the one before, when it has grown to this."""


class RunConfig(Part):
    dir: str | None = None
    """Run directory; None makes a new one under runs/. An existing one is resumed."""
    seed: int = Field(default=0, ge=0)
    versions: int | None = Field(default=None, ge=1)
    """End after so many decided candidates; None runs on."""
    cpu_share: float = Field(default=1.0, gt=0, le=1)
    """Part of the time that learning may use; the rest it idles."""
    start_timeout_s: float = Field(default=300, gt=0)
    stop_timeout_s: float = Field(default=30, gt=0)
    hang_s: float = Field(default=60, gt=0)
    """An actor whose work has not moved on for so long is killed and started again. Above the longest optimiser step
    and the longest answer of a sample."""
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    min_free_bytes: int = Field(default=200 * 2**20, ge=0)
    """With less room on the run directory's disk nothing is written: learning stands still until there is more,
    serving goes on."""
    retention: RetentionConfig = RetentionConfig()
