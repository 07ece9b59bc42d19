"""Every setting of a run: strict YAML, dotted overrides, and one readable error for whatever cannot work.

A component receives its own part. Defaults are what we would run on the embedded model on two cores.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from core.errors import ConfigError


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


class MethodConfig(Part):
    recipe: str = "lmsi"
    """A file in methods/recipes: lmsi, or its null control unvoted."""
    sampler: SamplerConfig = SamplerConfig()
    answer: AnswerConfig = PatternAnswer()
    min_share: float = Field(default=0.5, ge=0, le=1)
    """Ballots whose winner has a smaller share of the votes are dropped."""
    max_winners: int = Field(default=64, ge=1)
    """At most so many distinct winning candidates of a prompt become examples."""


# --- how to learn ----------------------------------------------------------------------------------------------------


class PlateauConfig(Part):
    versions: int = Field(default=6, ge=1)
    """Learning pauses when so many candidates in a row did not beat the champion."""


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
    """CPU threads of the trainer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    plateau: PlateauConfig | None = PlateauConfig()


class GateConfig(Part):
    anchors: str | None = "models/word-problems/anchors.parquet"
    """Parquet with prompt and answer: held-out questions with the base's frozen majority answers. None: the gate has
    nothing to weigh with, and every candidate is held."""
    keys: str | None = None
    """Parquet with prompt and answer, answers known to be right: decisions are then `certified`, not `guarded`."""
    split: SplitByHash | None = None
    delta: float = Field(default=0.03, gt=0, lt=1)
    """A candidate may be at most this much worse than the champion."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Chance, over the whole run, that any promoted version is worse than that."""
    reject_at: float = Field(default=20, gt=1)
    """Evidence for `worse` at which a candidate is rejected (1 in this many)."""
    max_probes: int = Field(default=2000, ge=1)
    batch: int = Field(default=64, ge=1)
    """Probes between two looks."""
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


class ServeConfig(Part):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free one."""
    replicas: int = Field(default=1, ge=1)
    engine: EngineConfig = EngineConfig()
    reserve_seats: int = Field(default=8, ge=0)
    """Seats that only users may take."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Part of the seats that background work may hold while users are active."""
    active_s: float = Field(default=5.0, ge=0)
    """Users count as active until so long after their last request."""
    swap_timeout_s: float = Field(default=120, gt=0)
    """A replica that has not reached a wanted state by then fails its health check and is replaced."""

    @model_validator(mode="after")
    def _seats(self) -> "ServeConfig":
        if self.reserve_seats >= self.engine.max_seqs:
            raise ValueError(
                f"serve.reserve_seats={self.reserve_seats} leaves no seat for learning; "
                f"keep it below serve.engine.max_seqs={self.engine.max_seqs}"
            )
        return self


class CollectConfig(Part):
    collectors: int = Field(default=1, ge=1)
    in_flight: int = Field(default=12, ge=1)
    """Prompts that one collector explores at once."""


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
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl."""


class Config(Part):
    model: ModelConfig = ModelConfig()
    prompts: PromptsConfig = PromptsConfig()
    method: MethodConfig = MethodConfig()
    learning: LearningConfig = LearningConfig()
    gate: GateConfig = GateConfig()
    report: ReportConfig = ReportConfig()
    serve: ServeConfig = ServeConfig()
    collect: CollectConfig = CollectConfig()
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
        raise ConfigError("\n".join(_readable(detail) for detail in error.errors())) from None


def dump(config: Config) -> str:
    """The resolved whole as YAML; loading it gives the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}; the shipped ones are in configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    except yaml.YAMLError as error:
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
