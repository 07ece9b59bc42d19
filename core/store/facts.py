"""Facts: small named values of a run, of which only the newest is kept. One type per fact.

    name            type            written by        content
    lineage         LineageFact     versions          the state of each version, and the version in each slot
    base            BaseFact        versions          version 0 as the trainer published it
    ledger          GateLedger      versions          the spent part of the gate's error budgets
    watched         Watched         evaluator         the promoted version under watch
    answers:V       Answers         evaluator         answers of version V to probes
    accuracy:V      Measured        evaluator         accuracy of version V on the report's questions
    final:start/end Measured        driver            accuracy of the first and the served version at the end
    other:V:T       OtherMeasured   evaluator         accuracy of version V on task T, which the run does not learn
    window:N        WindowDrawn     buffer            the places of window N
    buffer          BufferCounts    buffer            counts of the buffer when the newest window was drawn
    tuned           TunedFact       buffer            what the method's tuner decided at the newest draw
    settled:N       WindowDecided   buffer            the decision on window N's version, or that it made none
    paused          Paused          buffer            why learning is paused; survives restarts
    voted:P         PromptVoted     buffer            number of votes that count on prompt P
    first:P/voter   FirstVote       buffer            the window in which a voter first counted on prompt P
    pruned:N        WindowPruned    store             the samples of window N are deleted

Fields that older programs did not write have a default. Unknown fields are ignored.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field, RootModel

from core.messages import BASE, Message, PolicyRef, Published
from core.store.records import Record


class Fact(Message):
    """Base of all facts but `Answers`."""

    model_config = ConfigDict(extra="ignore")
    NAME: ClassVar[str]
    """The fact's name. If it ends with a colon, a key follows."""

    def record(self, key: object = "") -> Record:
        return Record("facts", f"{self.NAME}{key}", "", self.model_dump_json().encode())

    @classmethod
    def cleared(cls, key: object = "") -> Record:
        """A record that clears the fact."""
        return Record("facts", f"{cls.NAME}{key}", "", b"null")


class Hold(Message):
    """A person's hold: the served version does not change."""

    by: str
    why: str
    at: float


class Waiting(Message):
    """A promotion that takes effect when the hold ends."""

    version: int
    crowned: bool


class DueRollback(Message):
    """A rollback that the watch requested during a hold; executed when the hold ends."""

    version: int
    why: str


class LineageFact(Fact):
    """States and slots of all versions."""

    NAME = "lineage"
    states: dict[int, str] = Field(default_factory=dict[int, str])
    serve: int = 0
    champion: int = 0
    epoch: int = 0
    next_version: int = 1
    fallen: int = 0
    without_gain: int = 0
    rejections: int = 0
    activated: tuple[int, ...] | None = None
    """None in old runs, which did not store it; likewise `champions` and `withdrawn`."""
    champions: tuple[int, ...] | None = None
    withdrawn: tuple[int, ...] | None = None
    by_hand: tuple[int, ...] = ()
    held: Hold | None = None
    waiting: Waiting | None = None
    due: DueRollback | None = None


class BaseFact(Published, Fact):
    """Version 0 as published."""

    model_config = ConfigDict(extra="ignore")
    NAME = "base"


class GateLedger(Fact):
    """The gate's state over restarts, so that its error bound holds for the whole run."""

    NAME = "ledger"
    weighed: int = 0
    """Candidates weighed so far, the current one included: the index j of its alpha."""
    superiority_spent: float = 0.0
    """Sum of the alphas given to the delta = 0 process, out of a separate budget of size alpha."""
    champion: PolicyRef = BASE
    champion_asked: int = 0
    champion_hits: int = 0
    """Hits on the largest set of probes that the champion answered in one weighing."""

    def under(self, champion: PolicyRef) -> "GateLedger":
        """The same budgets for this champion. A new champion starts without hits."""
        if champion == self.champion:
            return self
        return self.model_copy(update={"champion": champion, "champion_asked": 0, "champion_hits": 0})

    def with_champion_hits(self, hits: Sequence[bool]) -> "GateLedger":
        """With these hits of the champion, if they cover more probes than the stored ones."""
        if len(hits) <= self.champion_asked:
            return self
        return self.model_copy(update={"champion_asked": len(hits), "champion_hits": sum(hits)})


class Watched(Fact):
    """The promoted version under watch."""

    NAME = "watched"
    version: int
    order: int
    """Index of its weighing, which determines the order of its probes."""


MONITORS = ("flexible_ratio", "entropy_nats", "distinct_2_ratio", "sampled_ratio", "pass_n_ratio", "gap")
"""Fields of `Measured` that warn early."""


class Measured(Fact):
    """Accuracy of a version on the report's questions, with a confidence interval."""

    NAME = "accuracy:"
    version: int
    accuracy: float
    low: float
    high: float
    n: int
    hits: str
    """One character per question, 1 for a hit, in the same order for all versions."""
    flexible_ratio: float | None = None
    """Share of questions of which the right answer is the last one in the text, in whatever form. What it is above
    `accuracy` is lost by format. None: not defined for these answers, or an old run; likewise below."""
    entropy_nats: float | None = None
    """Entropy of the answers across the questions."""
    distinct_2_ratio: float | None = None
    """Distinct pairs of words in all greedy texts, relative to all pairs."""
    sampled_ratio: float | None = None
    """Share of right ones among the samples of the questions that are sampled, if there are any; likewise below."""
    pass_n_ratio: float | None = None
    """Share of these questions of which at least one sample is right."""
    gap: float | None = None
    """The generation-verification gap: what `sampled_ratio` is more among the samples that the vote keeps. The low and
    high limits are those of 95%, over questions."""
    gap_low: float | None = None
    gap_high: float | None = None


class FinalMeasured(Measured):
    """The same, at the end of a run."""

    NAME = "final:"


class OtherMeasured(Measured):
    """The same on a task that the run does not learn."""

    NAME = "other:"
    task: str
    """As in `report.other_tasks`."""


class WindowDrawn(Fact):
    """The places of a drawn window."""

    NAME = "window:"
    places: tuple[int, ...]
    newest: int
    """The newest version at the draw; staleness was counted from it."""
    oldest: int | None = None
    """The oldest version that was not stale at the draw; None in old runs, which did not store it."""


class BufferCounts(Fact):
    """The buffer's counts when the newest window was drawn."""

    NAME = "buffer"
    window: int = 0
    next_place: int = 0
    open: tuple[int, ...] = ()
    """Places before `next_place` that were leased but not delivered."""
    waiting: tuple[int, ...] = ()
    """Delivered places that no window had drawn."""
    accepted: int = 0
    filtered: int = 0
    failed: int = 0
    expired: int = 0
    tokens: int = 0
    stale: int = 0
    quarantined: int = 0


class TunedFact(Fact):
    """The decision of the method's tuner at the newest draw."""

    NAME = "tuned"
    window: int
    values: dict[str, float] = Field(default_factory=dict[str, float])


class WindowDecided(Fact):
    """The decision on the version trained on a window."""

    NAME = "settled:"
    version: int
    """0: the window had no example, so it made none."""
    rejected: bool
    discarded: bool = False
    """There is no verdict: the version was discarded together with its parent, or there was none."""


class WindowPruned(Fact):
    """The samples of a window are deleted."""

    NAME = "pruned:"
    groups: int = 0


class Paused(Fact):
    """Learning is paused."""

    NAME = "paused"
    reason: str
    at: float
    lasting: bool = True


class PromptVoted(Fact):
    """People voted on a prompt."""

    NAME = "voted:"
    kept: int
    """Number of stored votes that count."""


class FirstVote(Fact):
    """The window in which a voter first counted on a prompt."""

    NAME = "first:"
    prompt: str
    voter: str
    window: int


class Answers(RootModel[dict[str, tuple[str | None, int]]]):
    """Probe id -> the extracted answer (None if there was none) and the length of the text in tokens."""

    NAME: ClassVar[str] = "answers:"

    def record(self, key: object) -> Record:
        return Record("facts", f"{self.NAME}{key}", "", self.model_dump_json().encode())
