"""Limits on the influence of people in a ballot. Pure functions, independent of the object of the vote.

    newest        of a voter's votes on one candidate, or on the answer of one prompt, only the newest counts
    account       all users of one key count as one voter for every limit
    weighed       one voter's votes weigh at most `voter_weight`, all people's at most `people_share` of a ballot
    backed        enough distinct people support it, or one that may decide alone
    corrections   texts of people that may be learned from
    pairs         comparisons of two texts that may be learned from
    Budgets       a voter counts on a limited number of prompts per window

Laws: the order of votes does not matter. More votes of a voter at the cap only split that voter's weight differently.
Any number of voters, honest or lying, control at most `people_share` of the weight cast.
Not prevented: colluding people can veto. Weight for another answer, or against the right one, reduces its share. The
ballot is then dropped, not won by another answer.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

from core.config import VotesConfig
from core.messages import Compared, Vote
from core.protocols import Extract

Weighed = list[tuple[Vote, float]]


def account(voter: str) -> str:
    """The account whose limits apply to a voter: `shop/ann` is user `ann` of the key `shop`, whose users share them."""
    return voter.partition("/")[0]


def newest(votes: Iterable[Vote]) -> list[Vote]:
    """The votes on one prompt that count, in the order cast. Scorers count the samples' votes themselves."""
    latest: dict[tuple[str, str, str | None], Vote] = {}
    for vote in sorted(votes, key=lambda vote: (vote.cast_at, vote.id)):
        if vote.by != "sample" and vote.counted:
            key = (vote.by, vote.voter, vote.candidate_id)
            latest.pop(key, None)
            latest[key] = vote
    return list(latest.values())


def weighed(votes: Iterable[Vote], samples: float | None, config: VotesConfig) -> Weighed:
    """The newest votes with their effective weights, in a ballot with `samples` further votes of weight 1.

    `samples=None`: samples do not vote, so people's share has no limit (and the caller must check `backed`). Verifiers
    are trusted: their votes count in full, on the side of the samples."""
    cast = newest(votes)
    people = _per_voter([vote for vote in cast if vote.by == "person"], config.voter_weight)
    trusted = [(vote, vote.weight) for vote in cast if vote.by == "verifier"]
    scale = 1.0
    if samples is not None and config.people_share < 1:
        others = samples + math.fsum(max(0.0, weight) for _, weight in trusted)
        room = config.people_share / (1 - config.people_share) * others
        total = math.fsum(abs(weight) for _, weight in people)
        scale = min(1.0, room / total) if total > 0 else 1.0
    return sorted(
        [*trusted, *((vote, scale * weight) for vote, weight in people)], key=lambda pair: (pair[0].cast_at, pair[0].id)
    )


def backed(votes: Iterable[Vote], config: VotesConfig) -> bool:
    """Whether `quorum` distinct people vote for it, or one voter that may decide alone."""
    in_favor = [vote for vote in votes if vote.weight > 0]
    alone = any(vote.by == "verifier" or account(vote.voter) in config.admins for vote in in_favor)
    return alone or len({account(vote.voter) for vote in in_favor if vote.by == "person"}) >= config.quorum


def corrections(votes: Iterable[Vote], config: VotesConfig, extract: Extract | None) -> list[str]:
    """The texts that are `backed` word for word, so that votes for an answer do not carry one voter's phrase along.

    With `extract`, only texts with the answer of most voters; none if two answers tie."""
    cast: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in newest(votes):
        if vote.correction is not None and vote.correction.strip():
            cast[vote.correction.strip()].append(vote)
    texts = sorted(text for text, supporters in cast.items() if backed(supporters, config))
    if extract is None:
        return texts
    voters: Counter[str] = Counter()
    for text in texts:
        answer = extract(text)
        if answer is not None:
            voters[answer] += len({account(vote.voter) for vote in cast[text]})
    ranked = voters.most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return []
    return [text for text in texts if extract(text) == ranked[0][0]]


def pairs(votes: Iterable[Vote], config: VotesConfig) -> list[tuple[Compared, Compared]]:
    """The comparisons, as (better, worse), that are `backed` and that more voters make than the opposite one."""
    cast: defaultdict[tuple[str, str], list[Vote]] = defaultdict(list)
    sides: dict[tuple[str, str], tuple[Compared, Compared]] = {}
    for vote in newest(votes):
        if vote.pair is not None:
            texts = (vote.pair[0].text, vote.pair[1].text)
            cast[texts].append(vote)
            sides.setdefault(texts, vote.pair)
    accounts = {texts: len({account(vote.voter) for vote in supporters}) for texts, supporters in cast.items()}
    return [
        sides[better, worse]
        for better, worse in sorted(cast)
        if backed(cast[better, worse], config) and accounts[better, worse] > accounts.get((worse, better), 0)
    ]


@dataclass
class Budgets:
    """The number of prompts on which each voter has counted in this window. A voter that counted on a prompt
    once always counts on it."""

    per_window: int
    window: int = 0
    """Windows drawn so far; the budgets are for the next one."""
    _used: Counter[str] = field(default_factory=Counter[str])

    def allows(self, voter: str, since: MutableMapping[str, int], window: int) -> bool:
        """Whether the voter counts on this prompt. `since` maps the prompt's voters to the window in which they first
        counted; a first vote that counts is added to it."""
        self._turn(window)
        voter = account(voter)
        if voter in since:
            return True
        if self._used[voter] >= self.per_window:
            return False
        self._used[voter] += 1
        since[voter] = window
        return True

    def restore(self, prompts: Iterable[Mapping[str, int]], window: int) -> None:
        """Rebuild the budgets after a restart, from `since` of every prompt that people voted on."""
        self._turn(window)
        self._used = Counter(voter for since in prompts for voter, first in since.items() if first == window)

    def _turn(self, window: int) -> None:
        if window != self.window:
            self.window = window
            self._used.clear()


def _per_voter(votes: Sequence[Vote], cap: float) -> Weighed:
    total: defaultdict[str, list[float]] = defaultdict(list)
    for vote in votes:
        total[account(vote.voter)].append(abs(vote.weight))
    scale = {voter: min(1.0, cap / math.fsum(cast)) if any(cast) else 1.0 for voter, cast in total.items()}
    return [(vote, scale[account(vote.voter)] * vote.weight) for vote in votes]
