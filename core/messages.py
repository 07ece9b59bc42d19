"""What crosses a wall. Two narrow waists keep every method apart from every other part:

    upstream all meets in `Group`:     alternative continuations of one context by one role, made by one version
    downstream all meets in `Example`: Imitate | Prefer | Reinforce

Messages are frozen and refuse unknown fields. Token ids and log-probabilities travel as packed little-endian bytes
(`core.codec`), never as lists. **A reference answer is no field of Prompt**: answer keys reach only the evaluator's
report, so that "label-free" can be read off the constructors.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

KINDS: dict[str, type["Message"]] = {}

Origin = Literal["dataset", "live", "asked"]
Finish = Literal["stop", "length"]
Pool = Literal["any", "serving", "shadow"]
"""What a replica may load. With LoRA every replica holds every version (`any`). With full weights `serving` replicas
hold the served version only, and `shadow` replicas any one at a time, never for users."""


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")
    SCHEMA: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        KINDS[cls.__name__] = cls

    @classmethod
    def migrate(cls, body: dict[str, Any], schema: int) -> dict[str, Any]:
        """The fields of an older schema as those of this one."""
        return body


class PolicyRef(Message):
    """One version of one adapter. Version 0 is the base model; a number is never used twice."""

    adapter: str = "policy"
    version: int = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.adapter}@v{self.version}"

    def __hash__(self) -> int:  # as pydantic's own for a frozen model, but where type checkers see it
        return hash((self.adapter, self.version))

    @classmethod
    def parse(cls, name: str) -> Self:
        """Raises: ValueError for anything but `adapter@vN`."""
        adapter, _, version = name.rpartition("@v")
        if not adapter or not (version.isascii() and version.isdecimal()):
            raise ValueError(f"{name!r} names no version; expected the form policy@v7")
        return cls(adapter=adapter, version=int(version))


BASE = PolicyRef(version=0)


class ChatMessage(Message):
    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Message):
    """Made by a PromptSource, read by a Sampler."""

    id: str
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    role: str = "solver"
    origin: Origin = "dataset"


class Sampling(Message):
    """How to draw continuations of one prompt. Temperature 0 is greedy."""

    n: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1)
    logprobs: bool = False
    """Also return the log-probability of every sampled token, after temperature (nats)."""
    seed: int | None = None
    purpose: Literal["explore", "gate", "report", "proof"] = "explore"
    """Who pays for the tokens, for the metrics; never changes what is drawn."""


class Candidate(Message):
    """One continuation, as sampled: its token ids are kept, with the stop token, and never tokenised again."""

    id: str
    start: PolicyRef
    end: PolicyRef
    """The versions that made the first and the last token; they differ only after an in-place full swap."""
    context_ids: bytes
    completion_ids: bytes
    text: str
    logprobs: bytes = b""
    finish: Finish
    render_id: str
    """Digest of tokenizer, chat template and its arguments; a trainer with another one refuses the candidate."""


class Group(Message):
    """Alternative continuations of one context. `parent` is the candidate that this context extends, or None."""

    id: str
    prompt: Prompt
    candidates: tuple[Candidate, ...]
    parent: str | None = None
    by: Literal["sample", "person"] = "sample"
    """Who wrote the candidates: the policy, or people who corrected it."""

    @property
    def policy(self) -> PolicyRef:
        """The oldest version in the group: what its staleness is counted from."""
        return min((c.start for c in self.candidates), key=lambda ref: ref.version, default=BASE)


class Vote(Message):
    """One vote in the ballot of a prompt. Samples and people cast into the same ballot."""

    id: str
    prompt_id: str
    candidate_id: str | None = None
    answer: str | None = None
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """May be negative."""
    by: Literal["sample", "person", "verifier"] = "sample"
    voter: str = ""
    """Who cast it. All votes without a name are one voter's."""
    cast_at: float = 0.0
    correction: str | None = Field(default=None, max_length=2**16)
    """A text to imitate, from a person who misses it among the candidates; without `answer` a vote for what it says."""
    counted: bool = True
    """False: kept, and in no ballot, because its voter had voted on too many prompts of this window."""
    response_id: str | None = None
    """The answer that it is about, where it came with feedback on one."""


class Response(Message):
    """What a user was answered, as far as a vote on it must know."""

    id: str
    prompt: Prompt | None
    """None for what is no chat of texts: votes on it are kept, and nothing is learned from them."""
    texts: tuple[str, ...]
    """Of each choice."""
    start: PolicyRef
    end: PolicyRef
    key: str = ""
    """Name of the key that asked; empty where there are no keys."""
    user: str = ""
    at: float
    learn: bool = True
    """False: the client asked not to be learned from."""


class Feedback(Message):
    """What somebody said of one choice of a response: exactly one of the five."""

    id: str
    response_id: str
    choice: int = Field(default=0, ge=0)
    binary: bool | None = None
    better_than: tuple[str, int] | None = None
    """A response to the same prompt, and which choice of it, that this one is better than."""
    correction: str | None = Field(default=None, min_length=1, max_length=2**16)
    comment: str | None = Field(default=None, min_length=1, max_length=2**16)
    metric: tuple[str, float] | None = None
    key: str = ""
    user: str = ""
    at: float = 0.0

    @property
    def voter(self) -> str:
        """The key; users are told apart below it, within its cap."""
        return f"{self.key}/{self.user}" if self.key and self.user else self.key or self.user


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
    """People have voted in this run: ask for the votes on each prompt (`Buffer.votes_on`)."""
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


class Published(Message):
    """A version on disk, whole: `path` holds safetensors and a manifest with the digest of every tensor."""

    ref: PolicyRef
    path: str
    parent: PolicyRef
    window: int
    """The window it was trained on; 0 for the base."""
    fingerprint: str
    """Digest over all tensor digests."""
    stats: dict[str, float] = Field(default_factory=dict)
    """What training reported: loss, steps, examples, tokens, seconds."""


class Slots(Message):
    """The state that every replica is to reach. `base` is version 0, always."""

    epoch: int
    serve: PolicyRef = BASE
    explore: PolicyRef = BASE
    champion: PolicyRef = BASE
    candidate: PolicyRef | None = None
    promoted: tuple[PolicyRef, ...] = (BASE,)
    """Versions that users may ask for by number."""
    loaded: tuple[Published, ...] = ()
    """Every version but the base that a replica must hold, newest last."""


class ReplicaReport(Message):
    """What a replica has proven, sent to the one owner of the versions."""

    replica: str
    pool: Pool = "any"
    epoch: int
    serving: PolicyRef = BASE
    """What it answers users with."""
    proven: tuple[PolicyRef, ...]
    failed: dict[str, str] = Field(default_factory=dict)
    """`policy@vN` -> why its proof failed."""
    counters: dict[str, float] = Field(default_factory=dict)
    """Since the replica started: tokens_user, swaps. Now: users, and of the seats background, background_waiting,
    background_limit."""


class Evidence(Message):
    """Paired greedy outcomes of candidate and champion on the same probes, in the order drawn."""

    candidate: PolicyRef
    champion: PolicyRef
    candidate_hits: tuple[bool, ...]
    champion_hits: tuple[bool, ...]
    certified: bool
    """True when outcomes were judged by answer keys; False when by agreement with anchors."""


class Decision(Message):
    verdict: Literal["promote", "reject", "hold"]
    candidate: PolicyRef
    champion: PolicyRef
    reason: str
    probes: int
    certified: bool
    new_champion: bool = False
    candidate_rate: float = 0.0
    champion_rate: float = 0.0
    saturated: bool = False
    """The champion agreed with as many anchors as are right: held to a fixed floor, see training.gate."""
    by: Literal["gate", "hand", "nobody"] = "gate"
    """`hand`: a person decided. `nobody`: the gate was off."""

    @property
    def standing(self) -> Literal["certified", "guarded", "by hand", "unweighed"]:
        """What a verdict rests on: answer keys, anchors, a person's word, or nothing. Shown wherever it is shown."""
        if self.by != "gate":
            return "by hand" if self.by == "hand" else "unweighed"
        return "certified" if self.certified else "guarded"


class Event(Message):
    """One line of the run's history."""

    at: float
    actor: str
    kind: str
    detail: dict[str, Any] = Field(default_factory=dict)
