"""The protocols between parts: a policy, and the pieces of a method."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field

from core.config.part import Part
from core.messages import Candidate, Example, Finish, Group, PolicyRef, Prompt, Sampling, Scored, Vote
from core.objectives import Objective

Supervision = Literal["none", "people", "seed", "tiny_valid", "teacher", "verifier", "gold"]
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


Tuned = Mapping[str, float]
"""What a method's tuner has set, by name."""
UNTUNED: Tuned = {}


@dataclass(frozen=True)
class History:
    """What filters and selectors may read beside the group that they look at."""

    groups: tuple[Scored, ...] = ()
    """All groups of the prompt, as judged now."""
    earlier: tuple[Scored, ...] = ()
    """Earlier judgments of the same prompt, oldest first, if the method `remembers`."""
    tuned: Tuned = field(default_factory=dict[str, float])


class Sampler(Protocol):
    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]: ...


class Scorer(Protocol):
    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        """Judges all groups of one prompt together. It may return extra groups, so that judgments can be trained on.

        `known`: the judgments of the last time, if these groups are settled again; what cost tokens is taken from
        there."""
        ...


class Said(Protocol):
    """What a candidate is to a mode."""

    @property
    def text(self) -> str: ...
    @property
    def finish(self) -> Finish: ...


@dataclass(frozen=True)
class ModeAnswer:
    """The answer of a serving mode."""

    text: str
    finish: Finish
    share: float | None = None
    """The answer's share of the ballot; 0 if no answer won and `text` is just a sample. None: there was no ballot."""
    least_share: float | None = None
    """The share that it has of all samples that were planned, whatever those that were not drawn would say."""

    @classmethod
    def of(cls, said: "Said", share: float | None = None, least_share: float | None = None) -> "ModeAnswer":
        return cls(said.text, said.finish, share, least_share)


class Progress(Protocol):
    """What a mode tells while it works. Nothing of it is part of the answer."""

    def aside(self, text: str) -> None:
        """Hidden work, for a client that asks to see it."""
        ...

    def so_far(self, answer: ModeAnswer) -> None:
        """The answer if the budget ends now."""
        ...


class ModeSettings(Part):
    """What a request may set under the mode's name, in every mode."""

    show: bool = False
    """Also send the hidden work, as `reasoning_content`."""
    budget_tokens: int | None = Field(default=None, ge=1)
    """The most tokens to generate; at most serve.modes.budget_tokens, the default."""


@dataclass(frozen=True)
class ModeCard:
    """What a user has to know before choosing a serving mode."""

    title: str
    source: str
    samples: bool = False
    """It draws several samples of one context, so it needs a temperature above 0."""
    needs: tuple[str, ...] = ()
    """What a request must set under the mode's name."""
    measured: str = "not measured: the embedded model cannot follow its instructions"
    """Its lead over a majority of as many tokens, in points of accuracy (`./run bench modes`)."""


@dataclass(frozen=True)
class Mode:
    """A way to answer with more than one sample.

    The policy belongs to one request: it samples from the version that admitted the request, counts tokens and keeps
    the budget. So a mode can neither mix versions nor leave hidden tokens uncounted."""

    answer: Callable[[Any, Prompt, Policy, Any, Progress], Awaitable[ModeAnswer]]
    """Its first argument is `shared`, with the client's sampling parameters in its `sampler`."""
    shared: Any
    """methods.recipes.Shared."""
    settings: type[ModeSettings]
    card: ModeCard


Filter = Callable[[Scored, History], DropReason | None]
Selector = Callable[[Sequence[Scored], History], list[Example]]
"""Makes examples of the kept groups of one prompt."""
Asker = Callable[[Prompt, Policy, Sequence[Scored]], Awaitable[Sequence[Prompt]]]
"""Prompts that the method wants explored next, written from a prompt and its judged groups."""
Measure = Callable[[Sequence[Scored], Tuned], Mapping[str, float]]
"""Numbers of one prompt's judged groups for the tuner. A number that does not apply is left out."""


@dataclass(frozen=True)
class Facts:
    """What a tuner decides by: the prompts that are new in a window."""

    window: int
    prompts: int
    kept: int
    """Prompts of which something is learned."""
    measured: Mapping[str, tuple[float, int]]
    """Name -> mean over the prompts that measured it, and their number."""
    tuned: Tuned
    """The present values."""


Tuner = Callable[[Facts], Tuned]
"""The values for the prompts that are leased from now on. Pure, so that a restart decides the same."""


@dataclass(frozen=True)
class Method:
    """A learning method: sampler, scorer, filters, selector, and the objective that trains on the result."""

    name: str
    sample: Sampler
    score: Scorer
    select: Selector
    objective: Objective
    filters: Sequence[Filter] = field(default=())
    rows: int = 1
    """Rows of each example that `select` makes. A check at start-up compares them with the objective."""
    columns: tuple[str, ...] = ()
    """Columns that these rows have."""
    tuned: Tuned = field(default_factory=dict[str, float])
    """The values to begin with."""
    tune: Tuner | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """Name -> least and greatest value that the tuner may set."""
    measure: Measure | None = None
    ask: Asker | None = None
    remembers: bool = False
    """Whether `History.earlier` is read for it."""


class Extract(Protocol):
    def __call__(self, text: str, stated: bool = False) -> str | None:
        """The text's answer in canonical form, or None. `stated`: a person, a key or an anchor states the answer, so
        the text may be the bare answer."""
        ...
