"""Objectives with their settings, as values of a recipe. The losses are in training/objectives, one file each.

This module must not import torch: recipes are built by processes that do not train.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from core.config.part import Part
from core.messages import PolicyRef

Unit = Literal["token", "sequence", "example"]


class Objective(Part):
    """What a method's examples are trained with."""

    kind: ClassVar[str]
    """Name of the loss: the function `kind` in training/objectives/`kind`.py."""
    rows: ClassVar[int] = 1
    """Rows of each example that it takes."""
    given: ClassVar[tuple[str, ...]] = ()
    """Columns that the rows must bring."""

    @property
    def named(self) -> str:
        """The weights that it compares with: parent, base, or policy@vN; empty: none."""
        return str(getattr(self, "reference", ""))

    @property
    def unit(self) -> Unit:
        """A step's loss is the weighted mean over these."""
        return "token"

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that the trainer computes: proximal (log-probabilities by the weights before the window's first
        step), reference (by `reference`), reference_logits (all logits of the base model)."""
        return ()

    @property
    def uses_base(self) -> bool:
        """Whether the trainer needs the base model beside the trained one."""
        return "reference_logits" in self.needs or ("reference" in self.needs and self.named == "base")


class Referred(Objective):
    """An objective that compares with other weights."""

    reference: str = "parent"
    """parent: the weights before the window's first step. base: version 0. policy@vN: that version of the run."""

    @field_validator("reference")
    @classmethod
    def _names_weights(cls, reference: str) -> str:
        if reference not in ("parent", "base"):
            try:
                PolicyRef.parse(reference)
            except ValueError:
                raise ValueError(f"{reference!r} names no weights; expected parent, base, or policy@vN") from None
        return reference

    @property
    def needs(self) -> tuple[str, ...]:
        return ("reference",)


class Sft(Objective):
    """Imitation: see training/objectives/sft.py."""

    kind = "sft"


class Grpo(Objective):
    """Group-relative policy optimization. Ratios are new to old probability of one token."""

    kind = "grpo"
    given = ("behaviour",)
    clip_low: float | None = Field(default=0.2, ge=0, lt=1)
    """Lower clip of the ratio: no gain below 1 - clip_low, relative to the probability when the window was drawn.
    None: unbounded."""
    clip_high: float | None = Field(default=0.2, ge=0)
    """Upper clip of the ratio: no gain above 1 + clip_high. None: unbounded."""
    kl: float = Field(default=1e-3, ge=0)
    """Weight of the divergence from the base model (nats per token); 0 turns it off and saves a second forward."""
    mean: Literal["token", "sequence"] = "token"
    """Whether each token of a step has the same weight, or each completion."""
    max_correction: float | None = Field(default=2.0, ge=1)
    """Truncated importance sampling: a token is weighted by the ratio of the trainer's probability to that of the
    engine that sampled it, at most by this. None: weight 1."""
    reference: ClassVar[str] = "base"

    @property
    def unit(self) -> Unit:
        return self.mean

    @property
    def needs(self) -> tuple[str, ...]:
        return ("proximal", "reference") if self.kl > 0 else ("proximal",)


class Dpo(Referred):
    """Preference: the chosen row above the rejected one."""

    kind = "dpo"
    rows = 2
    beta: float = Field(default=0.1, gt=0)
    """Weight (per nat) of the difference of the two log-ratios to the reference."""
    nll: float = Field(default=0.0, ge=0)
    """Weight of the chosen row's negative log-likelihood, the mean over its tokens."""
    optimism: float = Field(default=0.0, ge=0)
    """XPO's alpha: weight of the log-likelihood (a sum over tokens) of rows with the column `optimism`. 0: online
    DPO."""
    loss: Literal["logistic", "square"] = "logistic"
    """square: IPO, arXiv 2310.12036."""

    @property
    def unit(self) -> Unit:
        return "example"


class Sharpen(Referred):
    """The square loss whose optimum is the reference, raised to a power."""

    kind = "sharpen"
    rows = 2
    beta: float = Field(default=1.0, gt=0)
    """The optimum is proportional to reference^(1 + 1/beta)."""
    optimism: float = Field(default=0.0, ge=0)
    """Weight of the log-likelihood (a sum over tokens) of rows with the column `optimism`."""
    scale: float = Field(default=1.0, gt=0)
    """Divides the square."""
    clip: float | None = Field(default=None, gt=0)
    """Largest difference in reward (nats) of a pair. None: unbounded."""
    reference: str = "base"

    @property
    def unit(self) -> Unit:
        return "example"


class Kto(Referred):
    """Single judgments: rows with a positive advantage become likelier, others less likely."""

    kind = "kto"
    beta: float = Field(default=0.1, gt=0)
    unwanted: float = Field(default=1.0, ge=0)
    """Weight of unwanted rows, relative to wanted ones."""

    @property
    def unit(self) -> Unit:
        return "example"


class Gce(Objective):
    """Robust pseudo-labels: an imitation that unlikely tokens pull less."""

    kind = "gce"
    q: float = Field(default=0.8, gt=0, le=1)
    """Towards 0: cross entropy. 1: the mean absolute error."""
    targets: Literal["given", "argmax"] = "given"
    """The tokens of the row, or the likeliest tokens at their places."""


class Entropy(Objective):
    """Entropy of the next token, made smaller at every place of the row."""

    kind = "entropy"


class Kd(Objective):
    """Distillation from the base model, with help at the hardest tokens."""

    kind = "kd"
    blend: float = Field(default=0.5, ge=0, le=1)
    """Part of the row's own token in the target by which difficulty is measured; the rest is the teacher's."""
    hard: float = Field(default=0.3, ge=0, le=1)
    """Share of the tokens of a forward that count as hard."""
    proxy: float = Field(default=0.3, ge=0, lt=1)
    """Part of the target in the distribution that is compared with the teacher at hard tokens."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("reference_logits",)
