"""What the steps of a tree are worth: the part of the whole answers behind a step that reach the majority's answer.

All whole answers of the tree vote, final steps and rollouts alike, and people with them (methods.scorers.majority). So
a value knows nothing beyond the vote; the papers that search among steps train models of values with labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.messages import Candidate, Group, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.samplers.iid import grouped
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class TreeValues:
    """Scores every candidate of every group with its value, 0 to 1."""

    vote: Scorer
    """Of whole answers."""
    extract: Extract

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        whole = list(whole_answers(groups))
        if not whole:
            return []
        judged, *written = await self.vote([grouped(groups[0].prompt, whole)], votes, policy)
        behind = _behind(groups)
        answers = {candidate.id: answer_of(candidate, self.extract) for candidate in whole}
        found = [Scored(group=group, verdict=judged.verdict.model_copy(update={"shares": ()})) for group in groups]
        return [*(_valued(one, answers, behind) for one in found), *written]


def whole_answers(groups: Sequence[Group]) -> Iterator[Candidate]:
    """Each candidate that ends its answer, with the text of the whole answer."""
    for group in groups:
        before = "" if group.prompt.new_messages else group.prompt.messages[-1].content
        for candidate in group.candidates:
            if candidate.finish != "stop_string":
                yield candidate.model_copy(update={"text": before + candidate.text})


def _behind(groups: Sequence[Group]) -> Mapping[str, list[str]]:
    """Id of a candidate -> ids of the whole answers that begin with it."""
    after: dict[str, list[Group]] = {}
    for group in groups:
        if group.parent is not None:
            after.setdefault(group.parent, []).append(group)
    found: dict[str, list[str]] = {}

    def ends(candidate: Candidate) -> list[str]:
        if candidate.id not in found:
            further = (end for group in after.get(candidate.id, ()) for each in group.candidates for end in ends(each))
            found[candidate.id] = [*further] if candidate.finish == "stop_string" else [candidate.id]
        return found[candidate.id]

    for group in groups:
        for candidate in group.candidates:
            ends(candidate)
    return found


def _valued(scored: Scored, answers: Mapping[str, str | None], behind: Mapping[str, list[str]]) -> Scored:
    winner, candidates = scored.verdict.winner, scored.group.candidates
    hits = [[winner is not None and answers[end] == winner for end in behind[c.id]] for c in candidates]
    update = {
        "scores": tuple(sum(each) / len(each) if each else 0.0 for each in hits),
        "answers": tuple(answers.get(candidate.id) for candidate in candidates),
    }
    return scored.model_copy(update={"verdict": scored.verdict.model_copy(update=update)})
