"""Leases, judged groups, examples and windows: the messages from exploration to training."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

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
    shares: tuple[float, ...] = ()
    """The share of each candidate's own answer, 0 without one. Empty if there was no ballot, and in old runs."""


class Scored(Message):
    """A group with its verdict."""

    group: Group
    verdict: Verdict


class Span(Message):
    """A run of tokens of a row that are learned from alike."""

    tokens: int = Field(ge=1)
    weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """0: context, of which nothing is learned."""
    advantage: float = Field(default=0.0, allow_inf_nan=False)
    kl: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Factor of the objective's weight of the divergence from its reference."""


class Row(Message):
    """One sequence of tokens. Its targets are the tokens of spans with a weight, without the first token of all, which
    nothing predicts."""

    token_ids: bytes
    spans: tuple[Span, ...] = Field(min_length=1)
    columns: dict[str, bytes] = Field(default_factory=dict[str, bytes])
    """Name -> float32 of every target. behaviour: log-probability (nats) by the policy that sampled it."""

    @model_validator(mode="after")
    def _spans_add_up(self) -> "Row":
        tokens, spans = len(self.token_ids) // 4, sum(span.tokens for span in self.spans)
        if spans != tokens:
            raise ValueError(f"the spans have {spans} tokens, the row has {tokens}")
        for name, column in self.columns.items():
            if len(column) // 4 != self.targets:
                raise ValueError(
                    f"column {name} has {len(column) // 4} numbers, expected one for {self.targets} targets"
                )
        return self

    @property
    def targets(self) -> int:
        return sum(span.tokens for span in self.spans if span.weight > 0) - (self.spans[0].weight > 0)


class Example(Message):
    """One unit of training data. `id` makes every delivery idempotent."""

    SCHEMA: ClassVar[int] = 2
    WAS: ClassVar[tuple[str, ...]] = ("Imitate", "Prefer", "Reinforce")
    id: str
    group_id: str
    policy: PolicyRef
    method: str
    adapter: str = "policy"
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    render_id: str
    by: Literal["sample", "person"] = "sample"
    """The author of the learned tokens: the policy, or a person."""
    rows: tuple[Row, ...] = Field(min_length=1)
    """1: a completion. 2: the chosen and the rejected one."""
    fixed: bool = False
    """Its samples are of one version on purpose, so that they never grow stale."""

    @classmethod
    def migrate(cls, body: dict[str, Any], schema: int) -> dict[str, Any]:
        return body if schema > 1 else _of_one_kind(body)


def _of_one_kind(body: dict[str, Any]) -> dict[str, Any]:
    """An example of schema 1, which had a class for each kind."""
    body = dict(body)
    context = body.pop("context_ids")
    advantage, logprobs = body.pop("advantage", 0.0), body.pop("logprobs", None)
    names = ("completion_ids", "chosen_ids", "rejected_ids")
    completions = [body.pop(name) for name in names if name in body]
    columns = {} if logprobs is None else {"behaviour": logprobs}
    rows = [
        {
            "token_ids": context + completion,
            "spans": [span for span in _two_spans(context, completion, advantage) if span["tokens"]],
            "columns": columns,
        }
        for completion in completions
    ]
    return body | {"rows": rows}


def _two_spans(context: bytes, completion: bytes, advantage: float) -> list[dict[str, Any]]:
    return [
        {"tokens": len(context) // 4},
        {"tokens": len(completion) // 4, "weight": 1.0, "advantage": advantage},
    ]


class Lease(Message):
    """The buffer's permission to explore the prompts at these places of the source, until it expires."""

    id: str
    places: tuple[int, ...]
    expires_at: float
    voted: bool = False
    """True once people have voted in this run: the collector then reads each prompt's votes (`LeasePort.votes_on`)."""
    asked: tuple[tuple[int, Prompt], ...] = ()
    """Places with a prompt that a person or a method asked, which replaces the source's prompt."""
    tuned: dict[str, float] = Field(default_factory=dict[str, float])
    """What the method's tuner has set for these prompts."""


class Resettle(Message):
    """Work besides leases: people voted on an explored prompt, so its groups must be settled again."""

    id: str
    place: int
    prompt_id: str
    revision: int
    groups: tuple[Group, ...]
    """As sampled."""
    votes: tuple[Vote, ...]
    known: tuple[Scored, ...] = ()
    """The judgments of the last time, those of groups that the scorer added included."""
    tuned: dict[str, float] = Field(default_factory=dict[str, float])


class Outcome(Message):
    """The result of exploring one leased place. A failed prompt is data too: `failure` gives the reason."""

    SCHEMA: ClassVar[int] = 2
    lease_id: str
    place: int
    prompt_id: str
    scored: tuple[Scored, ...] = ()
    votes: tuple[Vote, ...] = ()
    examples: tuple[Example, ...] = ()
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
    asks: tuple[Prompt, ...] = ()
    """Prompts that the method wrote, to be explored next."""
    measured: dict[str, float] = Field(default_factory=dict[str, float])
    """Numbers for the method's tuner, which gets the mean of each over a window."""

    @classmethod
    def migrate(cls, body: dict[str, Any], schema: int) -> dict[str, Any]:
        if schema > 1:
            return body
        kinds = ("imitate", "prefer", "reinforce")
        examples = [_of_one_kind(example) for kind in kinds for example in body.get(kind, ())]
        return {name: value for name, value in body.items() if name not in kinds} | {"examples": examples}

    @property
    def version(self) -> int:
        """The oldest version that sampled for it, without groups of a version that was asked for by name."""
        groups = [scored.group for scored in self.scored if scored.group.candidates]
        sampled = [group.policy.version for group in groups if not group.fixed]
        learned = [example.policy.version for example in self.examples if not example.fixed]
        return min((*sampled, *learned), default=0)

    @property
    def named_ids(self) -> tuple[str, ...]:
        """Ids of all groups that it holds or has examples of."""
        held, learned = (scored.group.id for scored in self.scored), (example.group_id for example in self.examples)
        return tuple(dict.fromkeys((*held, *learned)))


class Window(Message):
    """The trainer's input for one version: the new groups, and all examples to train on, replayed windows included."""

    number: int
    group_ids: tuple[str, ...]
    examples: tuple[Example, ...] = ()
