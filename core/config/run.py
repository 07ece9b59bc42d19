"""Settings of the run itself: collectors, cluster nodes, retention, time limits."""

from typing import Literal

from pydantic import Field, model_validator

from core.config.part import Part


class CollectConfig(Part):
    collectors: int = Field(default=1, ge=1)
    in_flight: int = Field(default=24, ge=1)
    """Prompts in flight per collector. A batch returns as a whole, so three times the number of prompts that fit the
    engine's seats keep it busy."""


class ClusterConfig(Part):
    """Placement on the nodes of a cluster (`up --address`). A node offers custom Ray resources, as in
    `ray start --resources '{"serving": 1}'`; each part with a resource named here takes 1 of it. The bookkeeping actors
    stay on the node of the run directory, with the process that was started."""

    serving: str | None = None
    """Resource of which each replica takes 1. None: any node with room."""
    training: str | None = None
    """Resource of which the trainer takes 1. None: any node with room."""
    collecting: str | None = None
    """Resource of which each collector takes 1. None: any node with room."""
    replica_gpus: float | None = Field(default=None, ge=0)
    """GPUs per replica. None: derived from the GPUs present at the start, which misses nodes that join later."""
    trainer_gpus: float | None = Field(default=None, ge=0)
    """GPUs of the trainer. None: as for `replica_gpus`."""


class RetentionConfig(Part):
    """What a long run deletes. Votes of people, decisions, events and groups that no window has drawn are never
    deleted."""

    versions: int | None = Field(default=32, ge=2)
    """This many of the newest promoted versions, and this many of the newest others with a verdict, keep their folder.
    Versions that are served, compared with, trained from, measured or undecided always keep it. None keeps all."""
    windows: int | None = Field(default=64, ge=1)
    """Newest windows that keep their groups, examples and sample votes; never fewer than replay can need. None: all."""
    responses: int | None = Field(default=100_000, ge=1)
    """Newest answers to users that can be voted on; older ones are deleted. None keeps all."""
    metrics_bytes: int = Field(default=64 * 2**20, ge=2**12)
    """At this size metrics.jsonl is moved to metrics.jsonl.1 and replaces the previous one."""


class WebhooksConfig(Part):
    """Other servers that are told what happens to versions (actors/cli/webhooks.py)."""

    urls: tuple[str, ...] = ()
    kinds: tuple[str, ...] = (
        "decided",
        "crowned",
        "rolled_back",
        "promoted_by_hand",
        "serving_held",
        "serving_released",
        "paused",
        "resumed",
        "alert",
    )
    """Kinds of events that are sent."""
    attempts: int = Field(default=12, ge=1)
    """Tries for an event that an address does not take, after 1, 2, 4 ... at most 300 s; then it is left out."""

    @model_validator(mode="after")
    def _addresses(self) -> "WebhooksConfig":
        for url in self.urls:
            if not url.startswith(("http://", "https://")) or " " in url:
                raise ValueError(f"{url!r} is no address; expected http:// or https:// and a host")
        return self


class RunConfig(Part):
    dir: str | None = None
    """Run directory. An existing one is resumed. None makes a new one under runs/."""
    seed: int = Field(default=0, ge=0)
    versions: int | None = Field(default=None, ge=1)
    """End after this many decided candidates; None: no end."""
    tokens: int | None = Field(default=None, ge=1)
    """End earlier, at the first decided candidate for which this many tokens were sampled, those of judges included.
    Needs `versions`. None: no budget."""
    cpu_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the time that learning may use; it idles the rest."""
    start_timeout_s: float = Field(default=300, gt=0)
    stop_timeout_s: float = Field(default=30, gt=0)
    hang_s: float = Field(default=60, gt=0)
    """An actor that makes no progress for this long is killed and restarted. Must exceed the longest optimizer step and
    the longest generation of a sample."""
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Metric sinks in addition to metrics.jsonl."""
    min_free_bytes: int = Field(default=200 * 2**20, ge=0)
    """With less free space on the disk of the run directory nothing is written: learning waits for space, serving goes
    on."""
    retention: RetentionConfig = RetentionConfig()
    webhooks: WebhooksConfig = WebhooksConfig()

    @model_validator(mode="after")
    def _a_budget_is_of_a_run_with_an_end(self) -> "RunConfig":
        if self.tokens is not None and self.versions is None:
            raise ValueError(
                f"run.tokens={self.tokens} needs run.versions as well; set it to the most versions to make"
            )
        return self
