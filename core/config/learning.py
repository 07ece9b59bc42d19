from typing import Literal

from pydantic import Field

from core.config.part import Part


class GrpoConfig(Part):
    """The objective `grpo`. Ratios are of one token's probabilities."""

    clip_low: float | None = Field(default=0.2, ge=0, lt=1)
    """Nothing is gained by making a token less likely than 1 - clip_low times what it was when the window came in.
    None: unbounded."""
    clip_high: float | None = Field(default=0.2, ge=0)
    """The same for more likely than 1 + clip_high times. None: unbounded."""
    kl: float = Field(default=1e-3, ge=0)
    """Weight of the divergence from the base model, nats a token; 0 does without (and without a second forward)."""
    mean: Literal["token", "sequence"] = "token"
    """Whether each token of a step weighs the same, or each completion."""
    max_correction: float | None = Field(default=2.0, ge=1)
    """A token counts as many times as the trainer held it likelier than the engine that sampled it, at most so many
    times (truncated importance sampling). None: always once."""


class PlateauConfig(Part):
    versions: int = Field(default=6, ge=1)
    """Learning pauses when so many candidates in a row did not beat the champion."""


class BackoffConfig(Part):
    """What happens when the gate rejects one candidate after the other. A promotion starts the count anew."""

    after: int = Field(default=3, ge=1)
    """Every so many rejections in a row the learning rate of the next versions is multiplied by `factor`."""
    factor: float = Field(default=0.5, gt=0, le=1)
    """1 leaves the learning rate alone."""
    stop: int = Field(default=8, ge=1)
    """Learning pauses, with an alert, after so many rejections in a row; a run with an end only alerts."""


class LearningConfig(Part):
    groups_per_window: int = Field(default=256, ge=1)
    """Prompts that make one version."""
    replay_windows: int = Field(default=4, ge=1)
    """A version is trained on this many of the newest windows."""
    max_lag: int = Field(default=1, ge=0)
    """Windows that may be collected ahead of the gate; also the largest staleness of an example, in versions,
    at the draw of the window it is new in."""
    lease_s: float = Field(default=120, gt=0)
    """A leased prompt that is not delivered by then goes back."""
    lr: float = Field(default=3e-3, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_tokens: int = Field(default=2500, ge=1)
    """Padded tokens of one optimiser step."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Padded tokens of one forward and backward; a step adds up as many as it needs. None: one a step."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Part of the steps with a rising rate; then linear to 0."""
    clip_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of the trainer; with several devices, of each of its workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    """With more than 1 the model's weights, gradients and optimiser state are sharded over so many workers, each with
    a device of its own, by FSDP2 (needs the extra `cluster`)."""
    plateau: PlateauConfig | None = PlateauConfig()
    backoff: BackoffConfig = BackoffConfig()
    grpo: GrpoConfig = GrpoConfig()
    max_mismatch_kl: float | None = Field(default=0.002, gt=0)
    """Learning pauses when engine and trainer, with the same weights, differ by more on the tokens that were sampled
    (nats a token). Measured for recipes whose examples carry the engine's log-probabilities. None: never.

    Healthy windows of the embedded model: at most .0001; samples of the version before: .003 and more; another context:
    .001 to .5 (docs/results.md). A larger model in bfloat16 has a larger healthy gap: look at `mismatch_kl` first."""
