from pydantic import Field

from core.config.method import SplitByHash
from core.config.part import Part


class GuardsConfig(Part):
    """Limits on how a candidate answers, against the champion and against the base on the same probes: what an answer
    key or an anchor does not look at. A candidate that breaks one is rejected."""

    min_probes: int = Field(default=64, ge=16)
    """No guard speaks, and nothing is promoted, before so many probes, unless there are no more."""
    min_entropy_ratio: float = Field(default=0.85, ge=0, le=1)
    """Entropy of the answers across probes (nats), at least this part of the other's, or of the expected answers'
    where that is less. Healthy versions of the embedded model: .98 and more; collapse: .65 and less. 0: no limit."""
    max_format_drop: float = Field(default=0.05, ge=0, le=1)
    """Part of the answers that are finished and can be read, at most this much lower. 1: no limit."""
    min_length_ratio: float = Field(default=0.4, ge=0, le=1)
    """Mean tokens of an answer, at least this many times the other's. 0: no limit."""
    max_length_ratio: float = Field(default=4.0, ge=1)
    """At most this many times the other's. Answers of the embedded model become twice as long when they improve."""


class GateConfig(Part):
    anchors: str | None = "models/word-problems/anchors.parquet"
    """Parquet with prompt and answer: held-out questions with the base's frozen majority answers. None: the gate has
    nothing to weigh with, and every candidate is held."""
    keys: str | None = None
    """Parquet with prompt and answer, answers known to be right: decisions are then `certified`, not `guarded`."""
    split: SplitByHash | None = None
    delta: float = Field(default=0.03, gt=0, lt=1)
    """A candidate may be at most this much worse than the champion."""
    anchor_precision: float | None = Field(default=None, gt=0, le=1)
    """Part of the anchors that are right, as audited. A champion that agrees with this part less delta has saturated
    them: candidates are then held to a fixed floor, this part less two deltas, and none becomes champion. None: the
    anchors never count as saturated."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Chance, over the whole run, that any promoted version is worse than that."""
    reject_at: float = Field(default=50, gt=1)
    """Evidence for `worse` at which a candidate is rejected (1 in this many)."""
    max_probes: int = Field(default=2000, ge=1)
    batch: int = Field(default=64, ge=1)
    """Probes between two looks."""
    guards: GuardsConfig = GuardsConfig()
    watch_probes: int = Field(default=512, ge=0)
    """Further probes of a promoted version, asked while no candidate waits. 0: no watch after a promotion."""
    rollback_at: float = Field(default=100, gt=1)
    """Evidence on those probes for `worse by more than delta` at which serving returns to the champion."""
    near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """A prompt that holds this part of a probe's (or report question's) 8-word sequences, or is made of them to this
    part, never enters training. What says the same but for case, punctuation and spacing is refused at the start."""
    enabled: bool = True
    """False promotes every proven candidate unweighed; for experiments only."""


class ReportConfig(Part):
    questions: str | None = "models/word-problems/test.parquet"
    """Parquet with prompt and answer, for the report only: the gate and the trainer never see it. A missing file
    means a run without accuracy."""
    split: SplitByHash | None = None
    per_version: int = Field(default=600, ge=0)
    """Questions asked of every proven version."""
    final: int = Field(default=2400, ge=0)
    """Questions asked of the base and of the served version at the end of a run."""
