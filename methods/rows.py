"""Rows and examples from candidates: the only place that spells out their fields."""

from collections.abc import Iterable, Mapping, Sequence

from core.codec import example_id, pack_floats, stable_id
from core.errors import ObjectiveError
from core.messages import Candidate, Example, Group, Row, Span


def row(
    candidate: Candidate, *, advantage: float = 0.0, kl: float = 1.0, behaviour: bool = False, optimism: bool = False
) -> Row:
    """A candidate's completion behind its context. `behaviour`: with the sampler's log-probabilities. `optimism`: mark
    it for the optimism of `Dpo` and `Sharpen`.

    Raises: ObjectiveError for a candidate without a log-probability for each of its tokens."""
    tokens = len(candidate.completion_ids) // 4
    if behaviour and len(candidate.logprobs) != len(candidate.completion_ids):
        raise ObjectiveError(
            f"candidate {candidate.id} has {tokens} tokens and {len(candidate.logprobs) // 4} log-probabilities; "
            "sample with Sampling.logprobs=True"
        )
    columns = {"behaviour": candidate.logprobs} if behaviour else {}
    if optimism:
        columns["optimism"] = pack_floats([1.0] * tokens)
    return continued(candidate.context_ids, candidate.completion_ids, advantage=advantage, kl=kl, columns=columns)


def continued(
    context_ids: bytes,
    completion_ids: bytes,
    *,
    advantage: float = 0.0,
    kl: float = 1.0,
    columns: Mapping[str, bytes] | None = None,
) -> Row:
    """A row of packed token ids, of which the completion is learned."""
    context = (Span(tokens=len(context_ids) // 4),) if context_ids else ()
    learned = Span(tokens=len(completion_ids) // 4, weight=1.0, advantage=advantage, kl=kl)
    return Row(token_ids=context_ids + completion_ids, spans=(*context, learned), columns=dict(columns or {}))


def asking(candidate: Candidate) -> Row:
    """A row that learns the context of a candidate, in place of its completion."""
    tokens = len(candidate.context_ids) // 4
    return Row(token_ids=candidate.context_ids, spans=(Span(tokens=tokens, weight=1.0),))


def example(
    method: str, group: Group, candidates: Sequence[Candidate], rows: Iterable[Row], *, weight: float = 1.0
) -> Example:
    """An example of these candidates, in the order of its rows. It is as old as the newest version among them, as a
    group of a fixed version does not count."""
    first, *others = candidates
    name = first.id if not others else stable_id(*(candidate.id for candidate in candidates))
    policy = max((candidate.start for candidate in candidates), key=lambda ref: ref.version)
    return Example(
        id=example_id(method, group.id, name),
        group_id=group.id,
        policy=policy,
        method=method,
        adapter=policy.adapter,
        weight=weight,
        render_id=first.render_id,
        rows=tuple(rows),
        fixed=group.fixed and policy.version == 0,
    )
