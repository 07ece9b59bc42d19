"""An outcome on its way from who explored to the store. Its rows are encoded once, where they are made, and rest as
they travel; who hands them on reads only what is decided by."""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from core.codec import decode
from core.messages import Example, Message, Outcome
from core.store.records import Row, outcome_records


class EncodedOutcome(Message):
    lease_id: str
    place: int
    prompt_id: str
    revision: int = 0
    failure: str | None = None
    version: int = Field(ge=0)
    """The oldest that sampled for it."""
    group_ids: tuple[str, ...] = ()
    candidates: int = 0
    shares: tuple[float, ...] = ()
    """Of each group's winner."""
    votes: dict[str, int] = Field(default_factory=dict)
    """By whom -> how many."""
    tokens: int = 0
    rows: tuple[Row, ...]
    """Of the store."""

    @property
    def brief(self) -> Row:
        """The row that says what this place came to."""
        return next(row for row in self.rows if row[0] == "outcomes")

    @property
    def examples(self) -> tuple[Example, ...]:
        """Decoded anew each time. One that stands twice, by its id, is kept once. Raises: ArtifactError."""
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
        shares=tuple(scored.verdict.share for scored in outcome.scored),
        votes=Counter(vote.by for vote in outcome.votes),
        tokens=outcome.tokens,
        rows=tuple(outcome_records(outcome)),
    )


def encode_outcomes(outcomes: Iterable[Outcome]) -> list[EncodedOutcome]:
    return [encode_outcome(outcome) for outcome in outcomes]
