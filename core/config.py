"""Every setting of a run: strict YAML, dotted overrides, and one readable error for whatever cannot work.

A component receives its own part. Defaults are what we would run on the embedded model on two cores.
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from core.errors import ConfigError

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*A-Z]+")


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tree: Any) -> Any:
        """A choice whose `kind` is not named is of the default's kind, so that `model.weights.rank=4` is enough."""
        if not isinstance(tree, dict):
            return tree  # pyright: ignore[reportUnknownVariableType]
        filled = dict(cast(dict[str, Any], tree))
        for name, field in cls.model_fields.items():
            if field.discriminator and isinstance(filled.get(name), dict):
                filled[name] = {"kind": field.default.kind, **filled[name]}
        return filled


# --- the model -------------------------------------------------------------------------------------------------------


class Lora(Part):
    """Versions are LoRA adapters of one engine: small, instant to swap, many at once."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16, gt=0)
    """Adapter output is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter; fewer cost less when decoding on a CPU."""


class Full(Part):
    """Versions are whole models: a serving pool, and a shadow pool that is never routed to users."""

    kind: Literal["full"] = "full"


class ModelConfig(Part):
    path: str = "models/word-problems/model"
    """Folder (or, with network, hub name) that transformers and vLLM both load."""
    weights: Annotated[Lora | Full, Field(discriminator="kind")] = Lora()
    engine_dtype: Literal["auto", "float32", "bfloat16"] = "bfloat16"
    trainer_dtype: Literal["float32", "bfloat16"] = "float32"


# --- what to learn from ----------------------------------------------------------------------------------------------


class SplitByHash(Part):
    """A promise about a file of questions: hash(text) modulo `buckets` lies in `allowed`, checked at load."""

    buckets: int = Field(default=20, ge=2)
    allowed: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _buckets_exist(self) -> "SplitByHash":
        outside = [bucket for bucket in self.allowed if not 0 <= bucket < self.buckets]
        if outside:
            raise ValueError(f"bucket {outside[0]} is none of the {self.buckets} buckets 0 to {self.buckets - 1}")
        return self


class LiveConfig(Part):
    """Prompts of users that are learned from, beside those of the file. Off until somebody says so."""

    ratio: float = Field(default=0.0, ge=0, le=1)
    """Part of the answered chats that is explored. A client refuses with the header `x-ratchet-learn: no`."""
    redact: str | None = None
    """`module:function` that every text of a chat passes before anything of it is kept: str -> str."""


class PromptsConfig(Part):
    path: str = "models/word-problems/pool.parquet"
    """JSONL or Parquet of unlabeled prompts."""
    column: str = "prompt"
    """Column with the text, or with a list of chat messages."""
    system: str | None = None
    """A system message put before every prompt."""
    on_invalid: Literal["skip", "refuse"] = "refuse"
    """What to do with a line that is no valid prompt: report and skip it, or refuse to start."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many prompts."""
    split: SplitByHash | None = None
    live: LiveConfig = LiveConfig()


# --- how to improve --------------------------------------------------------------------------------------------------


class NumberAnswer(Part):
    """The last number in the text, canonical (`1,200.0` is `1200`)."""

    kind: Literal["number"] = "number"


class ChoiceAnswer(Part):
    kind: Literal["choice"] = "choice"
    choices: str = "ABCDE"


class PatternAnswer(Part):
    """The first group of the last match of a regular expression."""

    kind: Literal["pattern"] = "pattern"
    pattern: str = r"The answer is (-?\d+)\.?$"


class TextAnswer(Part):
    """Free form: the whole text, case, punctuation and spaces folded."""

    kind: Literal["text"] = "text"


AnswerConfig = Annotated[NumberAnswer | ChoiceAnswer | PatternAnswer | TextAnswer, Field(discriminator="kind")]


class SamplerConfig(Part):
    n: int = Field(default=8, ge=1, le=1024)
    """Candidates a prompt."""
    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=110, ge=1)
    """Bound on each candidate; one that runs into it has no answer."""


class VotesConfig(Part):
    """How far people's votes reach. A flood of votes, or a minority that agreed on a lie, gets no further than this."""

    people_share: float = Field(default=0.5, ge=0, le=1)
    """People's part of the weight in a ballot in which samples vote too, at most. 1: no limit."""
    voter_weight: float = Field(default=1.0, gt=0)
    """Weight of all votes of one voter in one ballot, at most; a sample weighs 1."""
    ballots_per_window: int = Field(default=64, ge=1)
    """Prompts on which one voter counts between two draws of a window; votes beyond that are kept and not counted."""
    quorum: int = Field(default=3, ge=1)
    """Distinct people who must have written the same correction before it is learned from, or favour the same candidate
    where samples have no say."""
    admins: tuple[str, ...] = ()
    """Voters who are a quorum by themselves."""
    correction_share: float = Field(default=0.05, ge=0, le=1)
    """Part of a window's examples that people may have written, at most."""
    explore: bool = True
    """A prompt that was voted on and never explored is explored next. False: its votes wait until it is."""
    asked_room: int = Field(default=4096, ge=0)
    """Prompts that people asked and that wait to be explored, at most."""


class MethodConfig(Part):
    recipe: str = "lmsi"
    """A file in methods/recipes: lmsi, its null control unvoted, or ttrl."""
    sampler: SamplerConfig = SamplerConfig()
    answer: AnswerConfig = PatternAnswer()
    votes: VotesConfig = VotesConfig()
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Ballots whose winner has a smaller share of the votes are dropped."""
    max_winners: int = Field(default=64, ge=1)
    """At most so many distinct winning candidates of a prompt become examples."""
    distinct: bool = True
    """False: a winner that was sampled several times weighs that much more."""
    train_n: int | None = Field(default=None, ge=2)
    """ttrl: of a prompt's candidates only the first so many are trained on; the others vote. None: all."""
    divide_by_std: bool = True
    """ttrl: advantages are divided by the deviation of the group's scores (GRPO). False: only the mean is taken off,
    so that a nearly unanimous group weighs no more than a split one."""


# --- how to learn ----------------------------------------------------------------------------------------------------


class GrpoConfig(Part):
    """The objective `grpo`. Ratios are of one token's probabilities."""

    clip_low: float | None = Field(default=0.2, ge=0, lt=1)
    """Nothing is gained by making a token less likely than 1 - clip_low times what it was when the window came in.
    None: unbounded."""
    clip_high: float | None = Field(default=0.2, ge=0)
    """The same for more likely than 1 + clip_high times. None: unbounded."""
    kl: float = Field(default=1e-3, ge=0)
    """Weight of the divergence from the base model, nats a token; 0 does without (and without a second forward)."""
    mean: Literal["token", "sequence"] = "token"
    """Whether each token of a step weighs the same, or each completion."""
    max_correction: float | None = Field(default=2.0, ge=1)
    """A token counts as many times as the trainer held it likelier than the engine that sampled it, at most so many
    times (truncated importance sampling). None: always once."""


class PlateauConfig(Part):
    versions: int = Field(default=6, ge=1)
    """Learning pauses when so many candidates in a row did not beat the champion."""


class BackoffConfig(Part):
    """What happens when the gate rejects one candidate after the other. A promotion starts the count anew."""

    after: int = Field(default=3, ge=1)
    """Every so many rejections in a row the learning rate of the next versions is multiplied by `factor`."""
    factor: float = Field(default=0.5, gt=0, le=1)
    """1 leaves the learning rate alone."""
    stop: int = Field(default=8, ge=1)
    """Learning pauses, with an alert, after so many rejections in a row; a run with an end only alerts."""


class LearningConfig(Part):
    groups_per_window: int = Field(default=256, ge=1)
    """Prompts that make one version."""
    replay_windows: int = Field(default=4, ge=1)
    """A version is trained on this many of the newest windows."""
    max_lag: int = Field(default=1, ge=0)
    """Windows that may be collected ahead of the gate; also the largest staleness of an example, in versions,
    at the draw of the window it is new in."""
    lease_s: float = Field(default=120, gt=0)
    """A leased prompt that is not delivered by then goes back."""
    lr: float = Field(default=3e-3, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_tokens: int = Field(default=2500, ge=1)
    """Padded tokens of one optimiser step."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Padded tokens of one forward and backward; a step adds up as many as it needs. None: one a step."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Part of the steps with a rising rate; then linear to 0."""
    clip_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of the trainer; with several devices, of each of its workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    """With more than 1 the model's weights, gradients and optimiser state are sharded over so many workers, each with
    a device of its own, by FSDP2 (needs the extra `cluster`)."""
    plateau: PlateauConfig | None = PlateauConfig()
    backoff: BackoffConfig = BackoffConfig()
    grpo: GrpoConfig = GrpoConfig()
    max_mismatch_kl: float | None = Field(default=0.002, gt=0)
    """Learning pauses when engine and trainer, with the same weights, differ by more on the tokens that were sampled
    (nats a token). Measured for recipes whose examples carry the engine's log-probabilities. None: never.

    Healthy windows of the embedded model: at most .0001; samples of the version before: .003 and more; another context:
    .001 to .5 (docs/results.md). A larger model in bfloat16 has a larger healthy gap: look at `mismatch_kl` first."""


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


# --- how to answer ---------------------------------------------------------------------------------------------------


class EngineConfig(Part):
    max_seqs: int = Field(default=64, ge=2)
    """Seats: sequences decoded at once."""
    max_tokens: int = Field(default=512, ge=16)
    """Prompt and answer together."""
    kv_cache_bytes: int | None = Field(default=2**28, ge=2**20)
    """None lets vLLM take what it finds (on a GPU: `gpu_memory_ratio`)."""
    gpu_memory_ratio: float = Field(default=0.6, gt=0, lt=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads of one engine."""
    tensor_parallel: int = Field(default=1, ge=1)
    tool_parser: str | None = None
    """vLLM's name for how the model writes a call of a tool (`hermes`, `llama3_json` ...). None: requests that want one
    called are refused."""


class AccessConfig(Part):
    """Who may use the HTTP service, and how much one request may ask for."""

    keys: str | None = None
    """File of API keys, which `ratchet keys` makes. With None, and without RATCHET_KEYS in the environment, whoever
    reaches the port is an admin, and `serve.host` has to be a loopback address."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    max_n: int = Field(default=16, ge=1)
    """Answers that one request may ask for: `n` (or `best_of`) times its prompts."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of one answer; a chat request that names no bound gets this one. None: what the engine has room for."""
    max_queue: int = Field(default=512, ge=1)
    """Requests of users that one replica answers or keeps waiting at once; one more gets status 429."""
    retry_after_s: int = Field(default=1, ge=1)
    """When it is told to try again."""
    allow_origins: tuple[str, ...] = ()
    """Web pages that may call the service from a browser, as `https://app.example.org`. Others are refused."""

    @model_validator(mode="after")
    def _origins(self) -> "AccessConfig":
        for origin in self.allow_origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin; expected scheme and host in lower case, without path and without `*`, "
                    "as https://app.example.org"
                )
        return self


class ServeConfig(Part):
    host: str = "127.0.0.1"
    """Anything but a loopback address needs keys (`serve.access.keys`)."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free one."""
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    """Ray Serve adds replicas up to so many while more requests are under way than `requests_per_replica`, and removes
    them down to `replicas` when it is quiet. None: always `replicas`."""
    requests_per_replica: float = Field(default=32, gt=0)
    """Requests under way, of users and of learning, that one replica is to have on average when replicas scale."""
    engine: EngineConfig = EngineConfig()
    reserve_seats: int = Field(default=8, ge=0)
    """Seats that only users may take."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Part of the seats that background work may hold while users are active."""
    active_s: float = Field(default=5.0, ge=0)
    """Users count as active until so long after their last request."""
    swap_timeout_s: float = Field(default=120, gt=0)
    """A replica that has not reached a wanted state by then fails its health check and is replaced."""
    access: AccessConfig = AccessConfig()

    @model_validator(mode="after")
    def _seats(self) -> "ServeConfig":
        if self.reserve_seats >= self.engine.max_seqs:
            raise ValueError(
                f"serve.reserve_seats={self.reserve_seats} leaves no seat for learning; "
                f"keep it below serve.engine.max_seqs={self.engine.max_seqs}"
            )
        return self

    @model_validator(mode="after")
    def _scales_up(self) -> "ServeConfig":
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"serve.max_replicas={self.max_replicas} is less than serve.replicas={self.replicas}, "
                "which it starts with; raise it, or null for a fixed number"
            )
        return self


class CollectConfig(Part):
    collectors: int = Field(default=1, ge=1)
    max_collectors: int | None = Field(default=None, ge=1)
    """Collectors are added up to so many while replicas have seats to spare, and removed down to `collectors` while
    what they ask has to wait. None: always `collectors`."""
    in_flight: int = Field(default=24, ge=1)
    """Prompts that one collector has under way at once. They go to the policy in batches that come back whole: three
    times what its seats hold keeps them taken."""

    @model_validator(mode="after")
    def _grows(self) -> "CollectConfig":
        if self.max_collectors is not None and self.max_collectors < self.collectors:
            raise ValueError(
                f"collect.max_collectors={self.max_collectors} is below collect.collectors={self.collectors}, with "
                "which it starts; raise it, or null for a fixed number"
            )
        return self


class ClusterConfig(Part):
    """Which nodes do what, where there are several (`up --address`). A node offers places by custom resources of Ray,
    as `ray start --resources '{"serving": 1}'`; each part that has a name here takes one place. Bookkeeping stays with
    the process that was started, where the run directory is."""

    serving: str | None = None
    """Resource that each replica takes one of. None: any node with room."""
    training: str | None = None
    """Resource that the trainer takes one of. None: any node with room."""
    collecting: str | None = None
    """Resource that each collector takes one of. None: any node with room."""
    replica_gpus: float | None = Field(default=None, ge=0)
    """GPUs of each replica. None: as there are at the start, which does not see nodes that are yet to come."""
    trainer_gpus: float | None = Field(default=None, ge=0)
    """GPUs of the trainer. None: as for `replica_gpus`."""


class RetentionConfig(Part):
    """What a run that goes on for weeks throws away. Votes of people, decisions, events and what no window has drawn
    are never thrown away."""

    versions: int | None = Field(default=32, ge=2)
    """So many of the newest promoted versions, and so many of the newest others with a verdict, keep their folder;
    what is served, compared with, trained from, measured or undecided keeps it anyway. None keeps all."""
    windows: int | None = Field(default=64, ge=1)
    """Newest windows whose groups, examples and sample votes are kept; never fewer than replay can need. None: all."""
    responses: int | None = Field(default=100_000, ge=1)
    """Newest answers of users that can be voted on; those before are thrown away. None keeps all."""
    metrics_bytes: int = Field(default=64 * 2**20, ge=2**12)
    """metrics.jsonl is moved to metrics.jsonl.1, over the one before, when it has grown to this."""


class RunConfig(Part):
    dir: str | None = None
    """Run directory; None makes a new one under runs/. An existing one is resumed."""
    seed: int = Field(default=0, ge=0)
    versions: int | None = Field(default=None, ge=1)
    """End after so many decided candidates; None runs on."""
    cpu_share: float = Field(default=1.0, gt=0, le=1)
    """Part of the time that learning may use; the rest it idles."""
    start_timeout_s: float = Field(default=300, gt=0)
    stop_timeout_s: float = Field(default=30, gt=0)
    hang_s: float = Field(default=60, gt=0)
    """An actor whose work has not moved on for so long is killed and started again. Above the longest optimiser step
    and the longest answer of a sample."""
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""
    min_free_bytes: int = Field(default=200 * 2**20, ge=0)
    """With less room on the run directory's disk nothing is written: learning stands still until there is more,
    serving goes on."""
    retention: RetentionConfig = RetentionConfig()
    shards: int = Field(default=1, ge=1, le=8)
    """Buffers with a store and a file each, among which the prompts are divided. Fixed for the life of a run directory;
    divides `learning.groups_per_window`."""


class Config(Part):
    model: ModelConfig = ModelConfig()
    prompts: PromptsConfig = PromptsConfig()
    method: MethodConfig = MethodConfig()
    learning: LearningConfig = LearningConfig()
    gate: GateConfig = GateConfig()
    report: ReportConfig = ReportConfig()
    serve: ServeConfig = ServeConfig()
    collect: CollectConfig = CollectConfig()
    cluster: ClusterConfig = ClusterConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _room_for_candidates(self) -> "Config":
        if self.method.sampler.max_tokens >= self.serve.engine.max_tokens:
            raise ValueError(
                f"method.sampler.max_tokens={self.method.sampler.max_tokens} leaves no room for a prompt; "
                f"keep it below serve.engine.max_tokens={self.serve.engine.max_tokens}"
            )
        free = self.serve.engine.max_seqs - self.serve.reserve_seats
        if self.method.sampler.n > free:
            raise ValueError(
                f"method.sampler.n={self.method.sampler.n} does not fit the {free} seats that learning may use; raise "
                f"serve.engine.max_seqs (now {self.serve.engine.max_seqs}) or lower serve.reserve_seats"
            )
        return self

    @model_validator(mode="after")
    def _whole_shards(self) -> "Config":
        groups, shards = self.learning.groups_per_window, self.run.shards
        if groups % shards:
            nearest = ", ".join(str(n) for n in (groups - groups % shards, groups - groups % shards + shards) if n)
            raise ValueError(
                f"learning.groups_per_window={groups} cannot be divided among run.shards={shards}; "
                f"set it to a multiple, such as {nearest}"
            )
        return self


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The file's settings with `a.b=value` overrides (values are YAML) on top of the defaults.

    Raises: ConfigError that names every wrong field, what was expected, and the nearest right name."""
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(Path(path))
    for override in overrides:
        _override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        where = f" (in {path})" if path is not None and not overrides else ""
        raise ConfigError("\n".join(_readable(detail) + where for detail in error.errors())) from None


def dump(config: Config) -> str:
    """The resolved whole as YAML; loading it gives the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}; the shipped ones are in configs/") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, expected a mapping of settings")
    return cast(dict[str, Any], tree)


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{override!r} is no override; expected the form method.sampler.n=16")
    *parents, leaf = name.split(".")
    for key in parents:
        part: Any = {} if tree.get(key) is None else tree[key]
        if not isinstance(part, dict):
            raise ConfigError(f"{override!r} goes through {key!r}, which is a value and no part")
        tree[key] = part
        tree = cast(dict[str, Any], part)
    try:
        tree[leaf] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value of {override!r} is not YAML: {error}") from None


def _readable(detail: ErrorDetails) -> str:
    where = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(where, list(_known_names(Config)), n=1, cutoff=0.0)
        return f"unknown setting {where}; did you mean {nearest[0]}?"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {detail['input']!r})" if where else message


def _place(loc: Sequence[int | str]) -> str:
    """The dotted name of a setting; pydantic also puts the `kind` of a choice in between."""
    known = _known_names(Config)
    names: list[str] = []
    for part, after in zip(loc, [*loc[1:], None], strict=False):
        here = ".".join([*names, f"{part}."])
        if not isinstance(after, str) or any(name.startswith(here) for name in known):
            names.append(str(part))
    return ".".join(names)


def _known_names(part: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in part.model_fields.items():
        names.append(prefix + name)
        for inner in _parts_in(field.annotation):
            names += _known_names(inner, f"{prefix}{name}.")
    return names


def _parts_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_in(inner)]
