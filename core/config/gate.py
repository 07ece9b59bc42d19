"""Settings of the gate, its guards and watch, and of the report."""

from pydantic import Field, model_validator

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


class SlicesConfig(Part):
    """Kinds of questions, named by the column `slice` of the gate's file: a promoted version may not be much worse on
    any of them."""

    delta: float = Field(default=0.1, gt=0, lt=1)
    """Largest tolerated loss against the champion on one slice (share of its probes)."""
    least: int = Field(default=100, ge=1)
    """Probes of a slice from which on it is held to that; smaller ones are not, as they could never be decided."""


class GateConfig(Part):
    anchors: str | None = "models/word-problems/anchors.parquet"
    """Parquet with prompt and answer: held-out questions with the base's frozen majority answers. None: the gate has
    no probes, and every candidate is held (unless `keys` is set)."""
    held_out: str | None = None
    """JSONL or Parquet of prompts without answers, which are never trained on. If the file `anchors` does not exist (or
    is None, which means one in the run directory), the run makes it from the base's majority answers to these prompts.
    Candidates wait until it is made."""
    anchor_samples: int = Field(default=16, ge=2)
    """Samples of the base per prompt of `held_out`."""
    anchor_share: float = Field(default=0.3, ge=0, le=1)
    """Minimum share of the majority in a prompt's samples. A high share keeps only what the base answers well already,
    and so hides improvements."""
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
    slices: SlicesConfig = SlicesConfig()
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
    sampled: int = Field(default=0, ge=0)
    """Of these, questions that are also sampled `method.sampler.n` times: for pass@n, and for the gap between the
    samples that the vote keeps and all samples. 0: none."""
    least_gap: float | None = Field(default=None, ge=0, le=1)
    """Learning pauses after two versions in a row whose gap (upper 95% limit, share of samples) is below this: the vote
    has nothing more to teach. None: never."""
    final: int = Field(default=2400, ge=0)
    """Questions for the base and for the served version at the end of a run."""
    other_tasks: list[str] = Field(default_factory=list)
    """Tasks that the run does not learn, asked of the base and of every version that comes to be served, to see what is
    lost on them: `words/NAME`, `reasoning-gym/NAME`, or a file of prompts and answers."""
    per_other_task: int = Field(default=400, ge=1)
    """Questions of each at most."""

    @model_validator(mode="after")
    def _gap_is_measured(self) -> "ReportConfig":
        if self.least_gap is not None and not (self.sampled and self.per_version):
            raise ValueError(
                f"report.least_gap={self.least_gap} needs a gap that is measured, but report.sampled={self.sampled} "
                f"and report.per_version={self.per_version}; set report.sampled=100, or report.least_gap=null"
            )
        return self
