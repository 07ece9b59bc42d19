"""Settings of prompts, answers, votes, and the learning method."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from core.config.part import Part


class SplitByHash(Part):
    """Asserts that hash(text) modulo `buckets` is in `allowed` for every question of a file; checked at load."""

    buckets: int = Field(default=20, ge=2)
    allowed: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _buckets_exist(self) -> "SplitByHash":
        outside = [bucket for bucket in self.allowed if not 0 <= bucket < self.buckets]
        if outside:
            raise ValueError(f"bucket {outside[0]} is not one of the {self.buckets} buckets 0 to {self.buckets - 1}")
        return self


class LiveConfig(Part):
    """Prompts of users that are explored in addition to those of the file. Off by default."""

    ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of the answered chats that is explored. A client opts out with the header `x-ratchet-learn: no`."""
    redact: str | None = None
    """`module:function` (str -> str), applied to every text of a chat before anything is stored."""


class PromptsConfig(Part):
    kind: Literal["file", "words", "reasoning-gym"] = "file"
    """Where prompts come from: a file; a shipped word list; or a task of the library reasoning-gym. The last two also
    bring questions for the gate and the report."""
    task: str | None = None
    """Name of the word list (such as `kinds`), or of reasoning-gym's data set (such as `chain_sum`)."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of reasoning-gym's data set, as difficulty."""
    shots: int | None = Field(default=None, ge=0, le=16)
    """Examples of the task, as turns of the chat before each question. None: as many as the task has by default."""
    size: int | None = Field(default=None, ge=20)
    """Number of questions in all: pool, held-out and test. None: all of a word list; 4,000 of reasoning-gym."""
    path: str = "models/word-problems/pool.parquet"
    """JSONL or Parquet file of unlabeled prompts."""
    column: str = "prompt"
    """Column with the text, or with a list of chat messages."""
    system: str | None = None
    """A system message put before every prompt."""
    on_invalid: Literal["skip", "refuse"] = "refuse"
    """For a line that is not a valid prompt: report and skip it, or refuse to start."""
    limit: int | None = Field(default=None, ge=1)
    """Use only this many prompts, from the start of the file."""
    split: SplitByHash | None = None
    live: LiveConfig = LiveConfig()

    @model_validator(mode="after")
    def _task_belongs_to_kind(self) -> "PromptsConfig":
        named = [name for name in ("task", "options", "shots", "size") if getattr(self, name) not in (None, {})]
        if self.kind == "file" and named:
            raise ValueError(
                f"prompts.{named[0]} is for prompts.kind=words or prompts.kind=reasoning-gym, not for a file; set "
                "prompts.kind"
            )
        if self.kind != "file" and self.task is None:
            raise ValueError(f"prompts.kind={self.kind} needs the name of a task; set prompts.task")
        if self.kind == "words" and self.options:
            raise ValueError("prompts.options are for prompts.kind=reasoning-gym; word lists have none: remove them")
        return self


class NumberAnswer(Part):
    """The last number in the text, canonical (`1,200.0` is `1200`). If its value is not certain, there is no answer."""

    kind: Literal["number"] = "number"


class MathAnswer(Part):
    """The boxed or else the last formula in the text, read by math-verify, canonical (`\\boxed{2x+x}` is `$3 x$`)."""

    kind: Literal["math"] = "math"


class ChoiceAnswer(Part):
    """The named option: one of `choices`."""

    kind: Literal["choice"] = "choice"
    choices: str = "ABCDE"


class PatternAnswer(Part):
    """The first group of the last match of a regular expression."""

    kind: Literal["pattern"] = "pattern"
    pattern: str = r"The answer is (-?\d+)\.?$"


class TextAnswer(Part):
    """Free form: the whole text, with case, punctuation and spaces folded."""

    kind: Literal["text"] = "text"


AnswerConfig = Annotated[
    NumberAnswer | MathAnswer | ChoiceAnswer | PatternAnswer | TextAnswer, Field(discriminator="kind")
]


class SamplerConfig(Part):
    n: int = Field(default=8, ge=1, le=1024)
    """Candidates per prompt."""
    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=110, ge=1)
    """Limit per candidate; a candidate that reaches it has no answer."""


class VotesConfig(Part):
    """Limits on the influence of people's votes, against floods of votes and colluding minorities."""

    people_share: float = Field(default=0.5, ge=0, le=1)
    """Maximum share of people in the weight of a ballot in which samples vote too. 1: no limit."""
    voter_weight: float = Field(default=1.0, gt=0)
    """Maximum total weight of one voter in one ballot; a sample weighs 1."""
    ballots_per_window: int = Field(default=64, ge=1)
    """Prompts on which one voter counts per window; further votes are stored but not counted."""
    quorum: int = Field(default=3, ge=1)
    """Distinct people needed to learn from a correction (all must write the same text), or to choose a candidate of a
    prompt whose samples have no answer."""
    admins: tuple[str, ...] = ()
    """Voters that form a quorum alone."""
    correction_share: float = Field(default=0.05, ge=0, le=1)
    """Maximum share of a window's examples that people wrote."""
    explore: bool = True
    """Explore a prompt next if people voted on it and it was never explored. False: the votes wait until its turn."""
    asked_room: int = Field(default=4096, ge=0)
    """Maximum number of people's prompts that wait to be explored."""


class MethodConfig(Part):
    recipe: str = "lmsi"
    """Name of a file in methods/recipes; `methods` lists them."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """The recipe's own settings, as `method.options.min_share=0.5`; `methods NAME` lists them."""
    sampler: SamplerConfig = SamplerConfig()
    answer: AnswerConfig = PatternAnswer()
    votes: VotesConfig = VotesConfig()
