"""Early stop of a vote: never another winner, and no more samples than it takes."""

import asyncio
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.config import MethodConfig, SamplerConfig, VotesConfig
from core.protocols import History, Votes
from methods import recipes
from methods.data.prompts import as_prompt
from methods.election import elected
from methods.explore import settle
from methods.recipes import Shared
from methods.samplers.decided import Decided, still_needed
from methods.samplers.iid import Iid
from methods.scorers.majority import answer_of, count
from methods.scripted_policy import ScriptedPolicy

EXTRACT = extractor(MethodConfig().answer)
ANSWERS = st.sampled_from([None, "a", "b", "c"])


@pytest.mark.parametrize(
    ("votes", "n", "needed"),
    [
        ("aaaab", 8, 1),  # 4:1 with 3 out: no
        ("aaaaa", 8, 0),  # 5:0 with 3: yes
        ("aaaa", 8, 1),  # 4:0 with 4: no, they could tie
        ("aaaaab", 8, 0),  # 5:1 with 2: yes
        ("", 8, 5),
        ("abcd", 8, 3),
        ("ab", 2, 0),
        ("--a", 4, 1),  # samples without an answer lead to nobody
    ],
)
def test_by_hand(votes: str, n: int, needed: int) -> None:
    assert still_needed([None if vote == "-" else vote for vote in votes], n) == needed


@given(st.lists(ANSWERS, min_size=2, max_size=9), st.integers(min_value=0, max_value=9))
def test_a_decided_ballot_keeps_its_winner_whatever_is_still_said(votes: list[str | None], out: int) -> None:
    n = len(votes) + out
    winner = count((vote, 1.0) for vote in votes).winner
    if still_needed(votes, n) or not out:
        return
    if out <= 4:
        rests = list(product([None, "a", "b", "c", "d"], repeat=out))
    else:
        rests = [(rival,) * out for rival in (None, "a", "b", "c", "d")]
    assert all(count((vote, 1.0) for vote in (*votes, *rest)).winner == winner for rest in rests)


@given(st.lists(ANSWERS, max_size=9), st.integers(min_value=1, max_value=9))
def test_the_number_is_the_least_that_can_decide(votes: list[str | None], out: int) -> None:
    n = len(votes) + out
    needed = still_needed(votes, n)
    leader = count((vote, 1.0) for vote in votes).winner or "a"
    for more in range(needed):
        assert still_needed([*votes, *[leader] * more], n) > 0, "fewer could decide it"
    assert needed == 0 or still_needed([*votes, *[leader] * needed], n) == 0


@pytest.mark.parametrize("rounds", [2, 8])
def test_the_winner_of_a_ballot_is_that_of_all_its_samples_for_fewer_tokens(rounds: int) -> None:
    config = SamplerConfig(n=8)
    shared = Shared(config, EXTRACT, VotesConfig())

    async def winners(early: bool) -> tuple[list[str | None], int]:
        policy = ScriptedPolicy(accuracy={0: 0.9}, wrong_answers=3)
        draw = Decided(config, EXTRACT, 8, rounds) if early else Iid(config)
        found: list[str | None] = []
        for i in range(200):
            prompt = as_prompt(f"question {i}")
            (group,) = await draw(prompt, policy)
            _, verdict = await elected(shared, prompt, group.candidates, policy)
            assert len(group.candidates) <= 8 and len({c.id for c in group.candidates}) == len(group.candidates)
            found.append(verdict.winner)
        return found, policy.tokens.total()

    early, few = asyncio.run(winners(True))
    whole, all_tokens = asyncio.run(winners(False))
    assert sum(a == b for a, b in zip(early, whole, strict=True)) > 185, "other samples, but nearly the same winners"
    assert few < (0.85 if rounds == 2 else 0.8) * all_tokens


def test_rounds_bound_how_often_it_asks() -> None:
    asked: list[int] = []

    async def draw(rounds: int) -> int:
        asked.clear()
        policy = ScriptedPolicy(accuracy={0: 0.2}, wrong_answers=9)
        sample = Decided(SamplerConfig(n=8), EXTRACT, 8, rounds, asked.append)
        (group,) = await sample(as_prompt("a hard question"), policy)
        assert answer_of(group.candidates[0], EXTRACT)
        return len(group.candidates)

    assert asyncio.run(draw(1)) == 8 and asked == [8]
    assert asyncio.run(draw(2)) == 8 and asked == [5, 8]
    asyncio.run(draw(8))
    assert len(asked) > 2 and asked[0] == 5


def test_lmsi_that_stops_early_learns_about_the_same_for_fewer_tokens() -> None:
    async def learned(early: bool) -> tuple[set[str], int]:
        config = MethodConfig(options={"early_stop": early})
        method, policy = recipes.build(config), ScriptedPolicy(accuracy={0: 0.8}, wrong_answers=3)
        found: set[str] = set()
        for i in range(150):
            prompt = as_prompt(f"question {i}")
            settled = await settle(method, await method.sample(prompt, policy), Votes(), History(), policy)
            found |= {f"{prompt.id} {one.verdict.winner}" for one in settled.scored if settled.examples}
        return found, policy.tokens.total()

    (early, few), (whole, all_tokens) = asyncio.run(learned(True)), asyncio.run(learned(False))
    assert len(early ^ whole) <= 6, "other prompts are learned from, or other answers"
    assert few < 0.85 * all_tokens
