"""The seams: what a part may ask of another, whatever stands behind it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from core.messages import Candidate, Example, Finish, Group, PolicyRef, Prompt, Sampling, Scored, Vote

Supervision = Literal["none", "people", "tiny_valid", "verifier", "gold"]
DropReason = str


class Policy(Protocol):
    """The one seam to the model. Everything that samples goes through it: collectors, evaluator, serving modes."""

    tokens: Counter[str]
    """Generated so far through this object, by purpose."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        """`sampling.n` continuations by one version; None means the version in the explore slot.

        Raises: VersionError when `ref` is not loaded; Unavailable when no replica can answer."""
        ...

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        """Log-probability of every token of `text`, with the stop token, after the prompt (nats)."""
        ...

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        """A text that somebody wrote as the candidate it would be, had version 0 said it: what imitating it takes.

        Raises: PromptError when it does not fit the engine."""
        ...


@dataclass(frozen=True)
class Votes:
    """The votes cast on one prompt besides those of its samples."""

    cast: tuple[Vote, ...] = ()


@dataclass(frozen=True)
class History:
    """What a selector may know of the past, read-only: earlier judgements of the same prompt."""

    earlier: tuple[Scored, ...] = ()


class Sampler(Protocol):
    async def __call__(self, prompt: Prompt, policy: Policy) -> list[Group]: ...


class Scorer(Protocol):
    async def __call__(self, groups: Sequence[Group], votes: Votes, policy: Policy) -> list[Scored]:
        """Sees all groups of one prompt, and may return extra ones, so that judgements become trainable."""
        ...


@dataclass(frozen=True)
class ModeAnswer:
    """The answer of a serving mode."""

    text: str
    finish: Finish
    share: float
    """Share of the ballot that voted for this answer; 0 when no answer won and `text` is just a sample."""


class Mode(Protocol):
    """A way to answer with more than one sample: a sampler and a scorer as in training, and the top answer.

    Its policy belongs to one request: it asks the version that admitted the request, with the client's sampling
    parameters, and counts tokens. So a mode cannot forget a hidden token or mix versions."""

    async def __call__(self, prompt: Prompt, policy: Policy) -> ModeAnswer: ...


Filter = Callable[[Scored], DropReason | None]
Selector = Callable[[Scored, History], list[Example]]


@dataclass(frozen=True)
class Method:
    """How to improve: four callables and what they need of the trainer."""

    name: str
    sample: Sampler
    score: Scorer
    select: Selector
    objective: str
    """Name in training.objectives; a check at start-up matches it with the kind of example that `select` makes."""
    makes: type[Example]
    supervision: Supervision
    filters: Sequence[Filter] = field(default=())


Extract = Callable[[str], str | None]
"""The answer that a text gives, in canonical form, or None."""

AnswerKeys = Mapping[str, str]
"""Prompt id -> canonical answer. Reaches only the evaluator's report and an explicit oracle."""
