"""Small values that a run remembers by name, newest only: what each is called, what it holds, and who writes it.

    name            type            written by        says
    lineage         LineageFact     versions          which version stands in which slot
    base            BaseFact        versions          version 0 as the trainer described it
    ledger          GateLedger      versions          what the gate has spent of its error budgets
    watched         Watched         evaluator         the promoted version whose probes are asked on
    answers:V       Answers         evaluator         what version V answered to probes
    accuracy:V      Measured        evaluator         version V on the report's questions
    final:start/end Measured        driver            the first and the served version when a run ended
    window:N        WindowDrawn     buffer            the places that window N is made of
    buffer          BufferCounts    buffer            what was taken in until the newest window was drawn
    settled:N       WindowDecided   buffer            the version made of window N is decided
    paused          Paused          buffer            why learning is paused, over restarts
    voted:P         PromptVoted     buffer            how many votes on prompt P count
    first:P/voter   FirstVote       buffer            when a voter first counted on prompt P
    pruned:N        WindowPruned    store             the samples of window N are deleted

Fields that a run of an older program lacks have a default; unknown fields are ignored.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field, RootModel

from core.messages import BASE, Message, PolicyRef, Published
from core.store.records import Record


class Fact(Message):
    model_config = ConfigDict(extra="ignore")
    NAME: ClassVar[str]
    """The fact's name; one that ends with a colon is followed by a key."""

    def record(self, key: object = "") -> Record:
        return Record("facts", f"{self.NAME}{key}", "", self.model_dump_json().encode())

    @classmethod
    def cleared(cls, key: object = "") -> Record:
        """The fact no longer holds."""
        return Record("facts", f"{cls.NAME}{key}", "", b"null")


class Hold(Message):
    """Who holds serving where it is."""

    by: str
    why: str
    at: float


class Waiting(Message):
    """What takes effect when the hold ends."""

    version: int
    crowned: bool


class DueRollback(Message):
    """A rollback that the watch asked for during a hold, carried out when it ends."""

    version: int
    why: str


class LineageFact(Fact):
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
    """None in runs of before it was kept, as `champions` and `withdrawn`."""
    champions: tuple[int, ...] | None = None
    withdrawn: tuple[int, ...] | None = None
    by_hand: tuple[int, ...] = ()
    held: Hold | None = None
    waiting: Waiting | None = None
    due: DueRollback | None = None


class BaseFact(Published, Fact):
    """Version 0."""

    model_config = ConfigDict(extra="ignore")
    NAME = "base"


class GateLedger(Fact):
    """What the gate must remember over restarts, for its promise to span the whole run."""

    NAME = "ledger"
    weighed: int = 0
    """Candidates ever weighed, the open one included: j of its alpha."""
    superiority_spent: float = 0.0
    """Sum of the alphas that the delta = 0 process has been given, of a budget of its own as large as alpha."""
    champion: PolicyRef = BASE
    champion_asked: int = 0
    champion_hits: int = 0
    """On the largest set of probes that the champion was asked in one weighing."""

    def under(self, champion: PolicyRef) -> "GateLedger":
        """The same budgets with this champion; of another one nothing is known yet."""
        if champion == self.champion:
            return self
        return self.model_copy(update={"champion": champion, "champion_asked": 0, "champion_hits": 0})

    def with_champion_hits(self, hits: Sequence[bool]) -> "GateLedger":
        """With the champion's hits, if these are more probes than before."""
        if len(hits) <= self.champion_asked:
            return self
        return self.model_copy(update={"champion_asked": len(hits), "champion_hits": sum(hits)})


class Watched(Fact):
    NAME = "watched"
    version: int
    order: int
    """Of its weighing, from which the order of its probes follows."""


class Measured(Fact):
    NAME = "accuracy:"
    version: int
    accuracy: float
    low: float
    high: float
    n: int
    hits: str
    """One character a question, 1 for a hit, in an order that is the same for all versions."""


class FinalMeasured(Measured):
    NAME = "final:"


class WindowDrawn(Fact):
    NAME = "window:"
    places: tuple[int, ...]
    newest: int
    """The newest version when it was drawn; staleness was counted from it."""
    oldest: int | None = None
    """The oldest version that was not stale then; None in runs of before it was kept."""


class BufferCounts(Fact):
    NAME = "buffer"
    window: int = 0
    next_place: int = 0
    open: tuple[int, ...] = ()
    """Places before `next_place` that were leased and not delivered."""
    waiting: tuple[int, ...] = ()
    """Places delivered that no window had drawn."""
    accepted: int = 0
    filtered: int = 0
    failed: int = 0
    expired: int = 0
    tokens: int = 0
    stale: int = 0
    quarantined: int = 0


class WindowDecided(Fact):
    NAME = "settled:"
    version: int
    rejected: bool
    discarded: bool = False
    """The version fell with its parent, without a verdict of its own."""


class WindowPruned(Fact):
    NAME = "pruned:"
    groups: int = 0


class Paused(Fact):
    NAME = "paused"
    reason: str
    at: float
    lasting: bool = True


class PromptVoted(Fact):
    NAME = "voted:"
    kept: int
    """Votes in the store that count."""


class FirstVote(Fact):
    NAME = "first:"
    prompt: str
    voter: str
    window: int


class Answers(RootModel[dict[str, tuple[str | None, int]]]):
    """Probe id -> the answer read out of the text, None where none was, and its length in tokens."""

    NAME: ClassVar[str] = "answers:"

    def record(self, key: object) -> Record:
        return Record("facts", f"{self.NAME}{key}", "", self.model_dump_json().encode())
