"""Turns one prompt into examples: sample, score, filter, select.

    explore = sample, then settle          settle = score, filter, select

`settle` is a function of its own because late votes settle stored groups again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from core.clock import Clock
from core.codec import sample_vote_id
from core.errors import PromptError, RatchetError
from core.messages import Example, Group, Outcome, Prompt, Resettle, Scored, Vote
from core.protocols import DropReason, History, Method, Policy, Votes

NO_VOTES = Votes()
NO_HISTORY = History()


@dataclass(frozen=True)
class Settled:
    """The settled groups of one prompt: all judgments, the examples of kept groups, and reasons for dropped ones."""

    scored: tuple[Scored, ...]
    examples: tuple[Example, ...]
    drops: Mapping[DropReason, int]


async def explore(
    method: Method,
    prompt: Prompt,
    policy: Policy,
    *,
    lease_id: str,
    place: int,
    clock: Clock,
    votes: Votes = NO_VOTES,
    history: History = NO_HISTORY,
    revision: int = 0,
) -> Outcome:
    """Sample and settle one prompt. An unusable prompt (PromptError, or a ValueError that is not Ratchet's) gives an
    Outcome with `failure`. `revision` is the number of people's votes that count on this prompt.

    Raises: all other errors, such as those of a broken policy (Unavailable, VersionError, OSError) and ConfigError."""
    groups: list[Group] = []
    try:
        groups = await method.sample(prompt, policy, history.tuned)
        settled = await settle(method, groups, votes, history, policy)
        asks = await method.ask(prompt, policy, settled.scored) if method.ask is not None else ()
    except ValueError as error:
        if isinstance(error, RatchetError) and not isinstance(error, PromptError):
            raise
        return Outcome(
            lease_id=lease_id,
            place=place,
            prompt_id=prompt.id,
            tokens=tokens_in(groups),
            failure=f"{type(error).__name__}: {error}",
            settled_at=clock.now(),
        )
    now = clock.now()
    explored = outcome(
        settled,
        lease_id=lease_id,
        place=place,
        prompt_id=prompt.id,
        votes=sample_votes(groups, settled.scored, now),
        tokens=tokens_in([*groups, *(scored.group for scored in settled.scored)]),
    )
    measured: Mapping[str, float] = {}
    if method.measure is not None:
        measured = method.measure(settled.scored, history.tuned)
    update = {"revision": revision, "sampled_ids": tuple(group.id for group in groups), "settled_at": now}
    return explored.model_copy(update=update | {"asks": tuple(asks), "measured": dict(measured)})


async def settle_again(method: Method, work: Resettle, policy: Policy, earlier: Sequence[Scored] = ()) -> Outcome:
    """Settle an explored prompt with people's present votes. If it can no longer be judged, the Outcome has a
    `failure`, as in `explore`.

    Raises: the errors of a broken policy."""
    try:
        history = History(earlier=tuple(earlier), tuned=work.tuned)
        settled = await settle(method, work.groups, Votes(work.votes), history, policy, work.known)
    except ValueError as error:
        if isinstance(error, RatchetError) and not isinstance(error, PromptError):
            raise
        return about(work, f"{type(error).__name__}: {error}")
    again = outcome(settled, lease_id=work.id, place=work.place, prompt_id=work.prompt_id)
    return again.model_copy(update={"revision": work.revision})


def about(work: Resettle, failure: str) -> Outcome:
    """The Outcome of work that failed."""
    return Outcome(
        lease_id=work.id, place=work.place, prompt_id=work.prompt_id, revision=work.revision, failure=failure
    )


async def settle(
    method: Method,
    groups: Sequence[Group],
    votes: Votes,
    history: History,
    policy: Policy,
    known: Sequence[Scored] = (),
) -> Settled:
    """Score, filter and select groups. `votes` may contain the samples' own votes: scorers recognize them. `known`: the
    judgments of the last time."""
    scored = await method.score(groups, votes, policy, known)
    history = replace(history, groups=tuple(scored))
    reasons = [_reason(method, one, history) for one in scored]
    kept = [one for one, reason in zip(scored, reasons, strict=True) if reason is None]
    written = {one.group.id for one in kept if one.group.by == "person"}
    examples = tuple(_by(example, example.group_id in written) for example in method.select(kept, history))
    return Settled(tuple(scored), examples, Counter(reason for reason in reasons if reason is not None))


def outcome(
    settled: Settled, *, lease_id: str, place: int, prompt_id: str, votes: Iterable[Vote] = (), tokens: int = 0
) -> Outcome:
    """The settled groups as a message for buffer and store."""
    return Outcome(
        lease_id=lease_id,
        place=place,
        prompt_id=prompt_id,
        scored=settled.scored,
        votes=tuple(votes),
        examples=settled.examples,
        drops=dict(settled.drops),
        tokens=tokens,
    )


def sample_votes(groups: Iterable[Group], scored: Iterable[Scored], cast_at: float) -> list[Vote]:
    """One vote per sampled candidate, for its own answer. Groups that a scorer added do not vote, nor do further turns:
    what a sample says twice counts once."""
    sampled = {group.id for group in groups if group.parent is None}
    return [
        Vote(
            id=sample_vote_id(candidate.id),
            prompt_id=one.group.prompt.id,
            candidate_id=candidate.id,
            answer=answer,
            by="sample",
            voter=str(candidate.start),
            cast_at=cast_at,
        )
        for one in scored
        if one.group.id in sampled
        for candidate, answer in zip(one.group.candidates, one.verdict.answers, strict=True)
    ]


def tokens_in(groups: Iterable[Group]) -> int:
    """Tokens generated for these groups. A candidate of several groups counts once; texts of people do not count."""
    distinct = {candidate.id: candidate for group in groups if group.by == "sample" for candidate in group.candidates}
    return sum(len(candidate.completion_ids) // 4 for candidate in distinct.values())


def _by(example: Example, written: bool) -> Example:
    return example.model_copy(update={"by": "person"}) if written else example


def _reason(method: Method, scored: Scored, history: History) -> DropReason | None:
    return next((reason for keep in method.filters if (reason := keep(scored, history)) is not None), None)
