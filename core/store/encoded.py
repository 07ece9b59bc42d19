"""An outcome on its way from a collector to the store. The collector encodes the rows once, and the store writes these
bytes. Parts in between decode only the fields that they need for decisions."""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from core.codec import decode
from core.messages import Example, Message, Outcome, Prompt
from core.messages.model import JUDGE
from core.store.records import Row, outcome_records


class EncodedOutcome(Message):
    """The encoded rows of an outcome, and the fields that the buffer decides by."""

    lease_id: str
    place: int
    prompt_id: str
    revision: int = 0
    failure: str | None = None
    version: int = Field(ge=0)
    """The oldest version that sampled for it."""
    group_ids: tuple[str, ...] = ()
    candidates: int = 0
    shares: tuple[float, ...] = ()
    """Share of the winner of each group."""
    votes: dict[str, int] = Field(default_factory=dict)
    """Kind of voter -> number of votes."""
    tokens: int = 0
    asks: tuple[Prompt, ...] = ()
    measured: dict[str, float] = Field(default_factory=dict[str, float])
    rows: tuple[Row, ...]
    """Rows of the store."""

    @property
    def brief(self) -> Row:
        """The row of the table `outcomes`."""
        return next(row for row in self.rows if row[0] == "outcomes")

    @property
    def examples(self) -> tuple[Example, ...]:
        """Decodes the examples at each access, each id once. Raises: ArtifactError."""
        bodies = {id: payload for table, id, _, payload in self.rows if table == "examples"}
        return tuple(decode(Example, payload) for payload in bodies.values())


def encode_outcome(outcome: Outcome) -> EncodedOutcome:
    return EncodedOutcome(
        lease_id=outcome.lease_id,
        place=outcome.place,
        prompt_id=outcome.prompt_id,
        revision=outcome.revision,
        failure=outcome.failure,
        version=outcome.version,
        group_ids=outcome.named_ids,
        candidates=sum(len(scored.group.candidates) for scored in outcome.scored),
        shares=tuple(each.verdict.share for each in outcome.scored if each.group.prompt.role != JUDGE),
        votes=Counter(vote.by for vote in outcome.votes),
        tokens=outcome.tokens,
        asks=outcome.asks,
        measured=outcome.measured,
        rows=tuple(outcome_records(outcome)),
    )


def encode_outcomes(outcomes: Iterable[Outcome]) -> list[EncodedOutcome]:
    return [encode_outcome(outcome) for outcome in outcomes]
