"""Leases, judged groups, examples and windows: the messages from exploration to training."""

from typing import Literal

from pydantic import Field

from core.messages.base import Message
from core.messages.model import Group, PolicyRef, Prompt
from core.messages.people import Vote


class Verdict(Message):
    """A scorer's judgment of one group: one score and one extracted answer per candidate."""

    scores: tuple[float, ...]
    answers: tuple[str | None, ...]
    winner: str | None
    share: float = Field(ge=0, le=1)
    """The winner's share of all positive weight cast, unparsable answers included."""
    margin: float = Field(ge=0, le=1)
    """The winner's share minus the runner-up's."""


class Scored(Message):
    """A group with its verdict."""

    group: Group
    verdict: Verdict


class Example(Message):
    """One unit of training data. `id` makes every delivery idempotent."""

    id: str
    group_id: str
    policy: PolicyRef
    method: str
    adapter: str = "policy"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    render_id: str
    by: Literal["sample", "person"] = "sample"
    """The author of the completion: the policy, or a person."""


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
    """Follow the advantage, corrected for the policy that sampled: `logprobs` are the behavior policy's."""

    context_ids: bytes
    completion_ids: bytes
    logprobs: bytes
    advantage: float = Field(allow_inf_nan=False)


class Lease(Message):
    """The buffer's permission to explore the prompts at these places of the source, until it expires."""

    id: str
    places: tuple[int, ...]
    expires_at: float
    voted: bool = False
    """True once people have voted in this run: the collector then reads each prompt's votes (`LeasePort.votes_on`)."""
    asked: tuple[tuple[int, Prompt], ...] = ()
    """Places with a prompt that a person asked, which replaces the source's prompt."""


class Resettle(Message):
    """Work besides leases: people voted on an explored prompt, so its groups must be settled again."""

    id: str
    place: int
    prompt_id: str
    revision: int
    groups: tuple[Group, ...]
    """As sampled."""
    votes: tuple[Vote, ...]


class Outcome(Message):
    """The result of exploring one leased place. A failed prompt is data too: `failure` gives the reason."""

    lease_id: str
    place: int
    prompt_id: str
    scored: tuple[Scored, ...] = ()
    votes: tuple[Vote, ...] = ()
    imitate: tuple[Imitate, ...] = ()
    prefer: tuple[Prefer, ...] = ()
    reinforce: tuple[Reinforce, ...] = ()
    drops: dict[str, int] = Field(default_factory=dict)
    """Reason to drop -> number of groups dropped."""
    tokens: int = 0
    """Tokens generated, dropped groups included."""
    failure: str | None = None
    revision: int = 0
    """Number of people's votes on this prompt when it was settled."""
    settled_at: float = 0.0
    """0 in old runs, which did not store it."""
    sampled_ids: tuple[str, ...] = ()
    """Ids of sampled groups; the scorer added the others. Empty: all were sampled."""
    group_ids: tuple[str, ...] | None = None
    """Set in the store, which keeps groups in their own table: this outcome's groups. None: all groups of its place."""

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.imitate, *self.prefer, *self.reinforce)

    @property
    def version(self) -> int:
        """The oldest version that sampled for it."""
        versions = [scored.group.policy.version for scored in self.scored if scored.group.candidates]
        return min((*versions, *(example.policy.version for example in self.examples)), default=0)

    @property
    def named_ids(self) -> tuple[str, ...]:
        """Ids of all groups that it holds or has examples of."""
        held, learned = (scored.group.id for scored in self.scored), (example.group_id for example in self.examples)
        return tuple(dict.fromkeys((*held, *learned)))


class Window(Message):
    """The trainer's input for one version: the new groups, and all examples to train on, replayed windows included."""

    number: int
    group_ids: tuple[str, ...]
    imitate: tuple[Imitate, ...] = ()
    prefer: tuple[Prefer, ...] = ()
    reinforce: tuple[Reinforce, ...] = ()

    @property
    def examples(self) -> tuple[Example, ...]:
        return (*self.imitate, *self.prefer, *self.reinforce)
