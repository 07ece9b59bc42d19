"""Settings of training: windows, optimizer, objective, and when learning pauses."""

from typing import Literal

from pydantic import Field

from core.config.part import Part


class PlateauConfig(Part):
    versions: int = Field(default=6, ge=1)
    """Learning pauses after this many candidates in a row that did not beat the champion."""


class BackoffConfig(Part):
    """The reaction to rejections in a row. A promotion resets the count."""

    after: int = Field(default=3, ge=1)
    """After every this many rejections in a row, the learning rate of the next versions is multiplied by `factor`."""
    factor: float = Field(default=0.5, gt=0, le=1)
    """1 keeps the learning rate."""
    stop: int = Field(default=8, ge=1)
    """Learning pauses with an alert after this many rejections in a row. A run with `run.versions` set only alerts."""


class LearningConfig(Part):
    groups_per_window: int = Field(default=256, ge=1)
    """Prompts per window; each window makes one version."""
    replay_windows: int = Field(default=4, ge=1)
    """A version is trained on this many of the newest windows."""
    max_lag: int = Field(default=1, ge=0)
    """Windows that may be collected ahead of the gate. Also the largest staleness of an example, in versions, when the
    window in which it is new is drawn."""
    lease_s: float = Field(default=120, gt=0)
    """Seconds after which a leased prompt that was not delivered can be leased again."""
    lr: float = Field(default=3e-3, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_tokens: int = Field(default=2500, ge=1)
    """Tokens per optimizer step, each example counted in whole, with padding."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens computed per forward and backward, with padding; a step accumulates as many as it needs. None: one per
    step."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps during which the rate rises; then it falls linearly to 0."""
    clip_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of the trainer, or of each worker if there are several devices."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    """With more than 1, FSDP2 shards weights, gradients and optimizer state over this many workers with one device each
    (needs the extra `cluster`)."""
    plateau: PlateauConfig | None = PlateauConfig()
    backoff: BackoffConfig = BackoffConfig()
    max_mismatch_kl: float | None = Field(default=0.002, gt=0)
    """Learning pauses if engine and trainer, with the same weights, differ by more than this on the sampled tokens
    (nats per token). Measured for recipes whose examples carry the engine's log-probabilities. None: never.

    Embedded model: healthy windows at most .0001; samples of the previous version .003 and more; another context .001
    to .5 (docs/results.md). A larger model in bfloat16 has a larger healthy gap: check the metric `mismatch_kl`
    first."""
