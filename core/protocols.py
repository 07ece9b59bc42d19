"""The protocols between parts: a policy, and the pieces of a method."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from core.messages import Candidate, Example, Finish, Group, PolicyRef, Prompt, Sampling, Scored, Vote

Supervision = Literal["none", "people", "tiny_valid", "verifier", "gold"]
DropReason = str


class Policy(Protocol):
    """The one interface to the model. Collectors, evaluator and serving modes all sample through it."""

    tokens: Counter[str]
    """Tokens generated through this object so far, by purpose."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        """`sampling.n` continuations by one version; None means the version in the explore slot.

        Raises: VersionError if `ref` is not loaded; Unavailable if no replica can answer."""
        ...

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        """Log-probability (nats) of every token of `text` after the prompt, stop token included."""
        ...

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        """A text written by a person, as a candidate of version 0, so that it can be imitated.

        Raises: PromptError if it does not fit the engine."""
        ...


@dataclass(frozen=True)
class Votes:
    """The votes on one prompt, other than those of its samples."""

    cast: tuple[Vote, ...] = ()


@dataclass(frozen=True)
class History:
    """The past that a selector may read: earlier judgments of the same prompt."""

    earlier: tuple[Scored, ...] = ()


class Sampler(Protocol):
    async def __call__(self, prompt: Prompt, policy: Policy) -> list[Group]: ...


class Scorer(Protocol):
    async def __call__(self, groups: Sequence[Group], votes: Votes, policy: Policy) -> list[Scored]:
        """Judges all groups of one prompt together. It may return extra groups, so that judgments can be trained on."""
        ...


@dataclass(frozen=True)
class ModeAnswer:
    """The answer of a serving mode."""

    text: str
    finish: Finish
    share: float
    """The answer's share of the ballot; 0 if no answer won and `text` is just a sample."""


class Mode(Protocol):
    """A way to answer with several samples: a sampler and a scorer as in training, and the best answer.

    The policy belongs to one request: it samples from the version that admitted the request, with the client's sampling
    parameters, and counts tokens. So a mode can neither mix versions nor leave hidden tokens uncounted."""

    async def __call__(self, prompt: Prompt, policy: Policy) -> ModeAnswer: ...


Filter = Callable[[Scored], DropReason | None]
Selector = Callable[[Scored, History], list[Example]]


@dataclass(frozen=True)
class Method:
    """A learning method: sampler, scorer, filters, selector, and the objective that trains on the result."""

    name: str
    sample: Sampler
    score: Scorer
    select: Selector
    objective: str
    """Name in training.objectives. A check at start-up compares it with `makes`."""
    makes: type[Example]
    """The kind of example that `select` returns."""
    supervision: Supervision
    filters: Sequence[Filter] = field(default=())


class Extract(Protocol):
    def __call__(self, text: str, stated: bool = False) -> str | None:
        """The text's answer in canonical form, or None. `stated`: a person, a key or an anchor states the answer, so
        the text may be the bare answer."""
        ...
