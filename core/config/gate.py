"""Settings of the gate, its guards and watch, and of the report."""

from pydantic import Field

from core.config.method import SplitByHash
from core.config.part import Part


class GuardsConfig(Part):
    """Limits on the form of a candidate's answers, which keys and anchors do not check. The candidate is compared with
    the champion and with the base on the same probes, and rejected if it breaks a limit."""

    min_probes: int = Field(default=64, ge=16)
    """Probes before guards are evaluated and a candidate can be promoted; fewer if no more exist."""
    min_entropy_ratio: float = Field(default=0.85, ge=0, le=1)
    """Minimum entropy of the answers across probes (nats), as a ratio to the other version's, or to the expected
    answers' if that is less. Embedded model: healthy versions .98 and more; collapse .65 and less. 0: no limit."""
    max_format_drop: float = Field(default=0.05, ge=0, le=1)
    """Maximum drop of the share of answers that are finished and can be parsed. 1: no limit."""
    min_length_ratio: float = Field(default=0.4, ge=0, le=1)
    """Minimum mean answer length (tokens), as a ratio to the other version's. 0: no limit."""
    max_length_ratio: float = Field(default=4.0, ge=1)
    """Maximum of the same ratio. Answers of the embedded model become twice as long when they improve."""


class GateConfig(Part):
    anchors: str | None = "models/word-problems/anchors.parquet"
    """Parquet with prompt and answer: held-out questions with the base's frozen majority answers. None: the gate has
    no probes, and every candidate is held (unless `keys` is set)."""
    held_out: str | None = None
    """Unlabeled held-out questions; the base's majority answers to them become the gate's anchors."""
    keys: str | None = None
    """Parquet with prompt and answer, where the answers are known to be right. Decisions are then `certified`, not
    `guarded`."""
    split: SplitByHash | None = None
    delta: float = Field(default=0.03, gt=0, lt=1)
    """Largest tolerated loss of a candidate against the champion (share of probes)."""
    anchor_precision: float | None = Field(default=None, gt=0, le=1)
    """Audited share of the anchors that are right. A champion that agrees with this share less delta has saturated the
    anchors: candidates must then reach a fixed floor, this share less two deltas, and none becomes champion. None: the
    anchors never count as saturated."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability, over the whole run, that any promoted version is worse than the champion by more than delta."""
    reject_at: float = Field(default=50, gt=1)
    """Evidence for `worse` at which a candidate is rejected (error rate 1 in this number)."""
    max_probes: int = Field(default=2000, ge=1)
    batch: int = Field(default=64, ge=1)
    """Probes between two evaluations of the evidence."""
    guards: GuardsConfig = GuardsConfig()
    watch_probes: int = Field(default=512, ge=0)
    """Further probes of a promoted version, sent while no candidate waits. 0: no watch after a promotion."""
    rollback_at: float = Field(default=100, gt=1)
    """Evidence on those probes for `worse by more than delta` at which serving returns to the champion."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """A prompt is never trained on if it contains this share of the 8-word sequences of a probe (or report question),
    or if this share of its own come from one. A run does not start with a prompt that equals a probe up to case,
    punctuation and spacing."""
    enabled: bool = True
    """False promotes every proven candidate without weighing it; for experiments only."""


class ReportConfig(Part):
    questions: str | None = "models/word-problems/test.parquet"
    """Parquet with prompt and answer, for the report only; gate and trainer never see it. If the file is missing, the
    run reports no accuracy."""
    split: SplitByHash | None = None
    per_version: int = Field(default=600, ge=0)
    """Questions per proven version."""
    final: int = Field(default=2400, ge=0)
    """Questions for the base and for the served version at the end of a run."""
