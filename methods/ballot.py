"""How much of a ballot people may move: pure laws, whatever was voted on.

    newest        a voter has one vote on each candidate, and one on the answer of each prompt: the newest counts
    account       the users of one key are one voter to every limit
    weighed       a voter's votes weigh at most `voter_weight` together, all people's at most `people_share` of a ballot
    backed        enough distinct people stand behind it, or one who may decide alone
    corrections   what people wrote and may be learned from
    Budgets       a voter counts on so many prompts between two draws

Laws: order decides nothing; more votes of a voter who is at the cap change only how that voter's own weight is split;
any number of voters, honest and lying together, move at most `people_share` of the weight that is cast.
What this does not stop: people who all lie may still veto, since weight that is cast for another answer, or against the
right one, makes its share smaller. A ballot is then dropped, not turned.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

from core.config import VotesConfig
from core.messages import Vote
from core.protocols import Extract

Weighed = list[tuple[Vote, float]]


def account(voter: str) -> str:
    """Whose caps a voter is under: `shop/ann` is a user whom the key `shop` names, and all its users share them."""
    return voter.partition("/")[0]


def newest(votes: Iterable[Vote]) -> list[Vote]:
    """What counts of these votes on one prompt, in the order cast. Samples vote by what they are, and not here."""
    latest: dict[tuple[str, str, str | None], Vote] = {}
    for vote in sorted(votes, key=lambda vote: (vote.cast_at, vote.id)):
        if vote.by != "sample" and vote.counted:
            key = (vote.by, vote.voter, vote.candidate_id)
            latest.pop(key, None)
            latest[key] = vote
    return list(latest.values())


def weighed(votes: Iterable[Vote], samples: float | None, config: VotesConfig) -> Weighed:
    """The newest votes with the weight that each counts with, beside `samples` votes of weight 1 in the same ballot.

    None: samples have no say, so that people's share has no limit (and `backed` must hold). Verifiers are trusted:
    their votes count in full, with the samples."""
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
    """Whether those who are for it are `quorum` distinct people, or one of them decides alone."""
    favour = [vote for vote in votes if vote.weight > 0]
    alone = any(vote.by == "verifier" or account(vote.voter) in config.admins for vote in favour)
    return alone or len({account(vote.voter) for vote in favour if vote.by == "person"}) >= config.quorum


def corrections(votes: Iterable[Vote], config: VotesConfig, extract: Extract | None) -> list[str]:
    """The texts that are backed, word for word, so that nobody's phrase rides along with another's right answer.

    With `extract` all must say one answer, the one with most voters behind it; equals contradict each other: none."""
    cast: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in newest(votes):
        if vote.correction is not None and vote.correction.strip():
            cast[vote.correction.strip()].append(vote)
    texts = sorted(text for text, behind in cast.items() if backed(behind, config))
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


@dataclass
class Budgets:
    """On how many prompts each voter has counted since the last draw. A prompt counted on stays counted on."""

    per_window: int
    window: int = 0
    """Windows drawn so far: the budgets are those of the next one."""
    _used: Counter[str] = field(default_factory=Counter[str])

    def allows(self, voter: str, since: MutableMapping[str, int], window: int) -> bool:
        """Whether that voter counts on one more prompt. `since`: of that prompt, voter -> the window in which that
        voter first counted; written to when this is the first time."""
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
        """After a restart: `since` of every prompt that people voted on."""
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
