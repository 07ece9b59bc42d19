from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.config.part import Part


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
