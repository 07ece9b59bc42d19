"""People's single judgments: which candidates they liked and which they disliked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.config import VotesConfig
from core.messages import Candidate, Group, Scored, Verdict, Vote
from core.protocols import Extract, Policy, Votes
from methods.ballot import account, backed, newest
from methods.scorers.majority import GUARDED, answer_of


@dataclass(frozen=True)
class Thumbs:
    """1 for a candidate that enough people like, -1 for one that enough people dislike, 0 for all others. A vote on an
    answer judges every candidate with it. If enough people do both, the side with more voters counts. A candidate
    that was cut off, or lacks an answer that others have, cannot get 1."""

    extract: Extract
    votes: VotesConfig = GUARDED
    flipped: bool = False
    """The null control: the signs of half of the candidates, drawn by their ids, are turned."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        answers = {c.id: answer_of(c, self.extract) for group in groups for c in group.candidates}
        cast, answerable = newest(votes.cast), any(answers.values())
        scored: list[Scored] = []
        for group in groups:
            scores = tuple(
                self._score(
                    c, answers[c.id], cast, c.finish == "stop" and (not answerable or answers[c.id] is not None)
                )
                for c in group.candidates
            )
            liked = next((c for c, score in zip(group.candidates, scores, strict=True) if score > 0), None)
            share = float(any(scores))
            verdict = Verdict(
                scores=scores,
                answers=tuple(answers[c.id] for c in group.candidates),
                winner=None if liked is None else answers[liked.id] or liked.id,
                share=share,
                margin=share,
            )
            scored.append(Scored(group=group, verdict=verdict))
        return scored

    def _score(self, candidate: Candidate, answer: str | None, cast: Sequence[Vote], whole: bool) -> float:
        about = [vote for vote in cast if self._is_about(vote, candidate, answer)]
        likes = [vote for vote in about if vote.weight > 0]
        dislikes = [vote.model_copy(update={"weight": -vote.weight}) for vote in about if vote.weight < 0]
        ahead = self._support(likes) - self._support(dislikes)
        score = float((ahead > 0) - (ahead < 0))
        if self.flipped and random.Random(stable_id("flip", candidate.id)).random() < 0.5:
            score = -score
        return score if whole or score < 0 else 0.0

    def _support(self, votes: Sequence[Vote]) -> int:
        """Number of voters; 0 if they are too few."""
        return len({account(vote.voter) for vote in votes}) if backed(votes, self.votes) else 0

    def _is_about(self, vote: Vote, candidate: Candidate, answer: str | None) -> bool:
        if vote.candidate_id is not None:
            return vote.candidate_id == candidate.id
        return answer is not None and vote.answer is not None and self.extract(vote.answer, stated=True) == answer
