"""From a lease to a window: what exploring gives, and what a trainer learns from."""

from typing import Literal

from pydantic import Field

from core.messages.base import Message
from core.messages.model import Group, PolicyRef, Prompt
from core.messages.people import Vote


class Verdict(Message):
    """A scorer's judgement of one group: one score and one extracted answer a candidate."""

    scores: tuple[float, ...]
    answers: tuple[str | None, ...]
    winner: str | None
    share: float = Field(ge=0, le=1)
    """The winner's part of all the weight cast, unparsable answers included."""
    margin: float = Field(ge=0, le=1)
    """The winner's share less the runner-up's."""


class Scored(Message):
    group: Group
    verdict: Verdict


class Example(Message):
    """What a trainer learns from. `id` makes every delivery idempotent."""

    id: str
    group_id: str
    policy: PolicyRef
    method: str
    adapter: str = "policy"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    render_id: str
    by: Literal["sample", "person"] = "sample"
    """Who wrote the completion."""


class Imitate(Example):
    """Make this completion likelier."""

    context_ids: bytes
    completion_ids: bytes


class Prefer(Example):
    """Make the chosen completion likelier than the rejected one."""

    context_ids: bytes
    chosen_ids: bytes
    rejected_ids: bytes


class Reinforce(Example):
    """Follow the advantage, corrected for the policy that sampled: `logprobs` are the behaviour policy's."""

    context_ids: bytes
    completion_ids: bytes
    logprobs: bytes
    advantage: float = Field(allow_inf_nan=False)


class Lease(Message):
    """The buffer's permission to explore the prompts at these places in the source, until it expires."""

    id: str
    places: tuple[int, ...]
    expires_at: float
    voted: bool = False
    """People have voted in this run: ask for the votes on each prompt (`LeasePort.votes_on`)."""
    asked: tuple[tuple[int, Prompt], ...] = ()
    """Places with what is explored there instead of the source's prompt: somebody asked it."""


class Resettle(Message):
    """Work beside leases: people voted on an explored prompt, so its groups are to be settled again."""

    id: str
    place: int
    prompt_id: str
    revision: int
    groups: tuple[Group, ...]
    """As they were sampled."""
    votes: tuple[Vote, ...]


class Outcome(Message):
    """What exploring one leased place gave. A prompt that failed is data: `failure` says how."""

    lease_id: str
    place: int
    prompt_id: str
    scored: tuple[Scored, ...] = ()
    votes: tuple[Vote, ...] = ()
    imitate: tuple[Imitate, ...] = ()
    prefer: tuple[Prefer, ...] = ()
    reinforce: tuple[Reinforce, ...] = ()
    drops: dict[str, int] = Field(default_factory=dict)
    """Reason of a filter -> groups that it dropped."""
    tokens: int = 0
    """Tokens generated, dropped groups included."""
    failure: str | None = None
    revision: int = 0
    """Votes of people on this prompt that it was settled with."""
    settled_at: float = 0.0
    """0 in runs of before it was kept."""
    sampled_ids: tuple[str, ...] = ()
    """Groups that were sampled; the others were added by the scorer. None named: all."""
    group_ids: tuple[str, ...] | None = None
    """In the store, where groups have a table of their own: which are this outcome's. None: all of its place."""

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.imitate, *self.prefer, *self.reinforce)

    @property
    def version(self) -> int:
        """The oldest that sampled for it."""
        versions = [scored.group.policy.version for scored in self.scored if scored.group.candidates]
        return min((*versions, *(example.policy.version for example in self.examples)), default=0)

    @property
    def named_ids(self) -> tuple[str, ...]:
        """Every group that it holds, or learns from."""
        held, learned = (scored.group.id for scored in self.scored), (example.group_id for example in self.examples)
        return tuple(dict.fromkeys((*held, *learned)))


class Window(Message):
    """What the trainer draws for one version: the groups new in this window, and the examples to train on, which
    also hold those of the windows replayed."""

    number: int
    group_ids: tuple[str, ...]
    imitate: tuple[Imitate, ...] = ()
    prefer: tuple[Prefer, ...] = ()
    reinforce: tuple[Reinforce, ...] = ()

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.imitate, *self.prefer, *self.reinforce)
