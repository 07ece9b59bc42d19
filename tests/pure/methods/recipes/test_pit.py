"""PIT by hand: the improver learns the better text behind the worse one."""

import asyncio

from core.codec import unpack_ids
from core.messages import Example, Row, Vote
from core.protocols import History, Method, Votes
from methods.explore import settle
from methods.modes.improve import IMPROVE
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.people import PROMPT, built, compared, group


def pairs(method: Method, *cast: Vote) -> tuple[list[Example], list[str]]:
    """The examples, and the texts of the chats that their groups answer."""
    work = settle(method, [group("own answer")], Votes(cast), History(), ScriptedPolicy(accuracy={3: 0.5}))
    settled = asyncio.run(work)
    made = {one.group.id: one.group for one in settled.scored}
    chats = [[m.content for m in made[example.group_id].prompt.messages] for example in settled.examples]
    return list(settled.examples), chats[0] if chats else []


def said(row: Row) -> str:
    """The text of the row's targets, of a candidate that ScriptedPolicy rendered."""
    return bytes(id - 1 for id in unpack_ids(row.token_ids)[-row.targets :] if id).decode()


def test_the_better_text_is_learned_above_the_worse_behind_the_worse_and_the_request() -> None:
    method = built("pit", "method.votes.quorum=1", "method.options.feedback=Be exact.")
    (example,), chat = pairs(method, compared("ann", better="It is 5.", worse="It is 6."))
    chosen, rejected = example.rows
    assert (said(chosen), said(rejected)) == ("It is 5.", "It is 6.")
    assert chat == [PROMPT.messages[0].content, "It is 6.", IMPROVE.replace("{feedback}", "Be exact.")]
    context = chosen.spans[0].tokens
    assert unpack_ids(chosen.token_ids)[:context] == unpack_ids(rejected.token_ids)[:context], "one context for both"


def test_the_request_is_that_of_the_serving_mode() -> None:
    assert IMPROVE.startswith("{feedback}")


def test_without_a_comparison_nothing_is_said() -> None:
    assert pairs(built("pit", "method.votes.quorum=1")) == ([], [])


def test_flipped_takes_the_worse_text_for_the_better_half_of_the_time() -> None:
    method = built("pit", "method.votes.quorum=1", "method.options.flipped=true")
    better = []
    for number in range(60):
        (example,), _ = pairs(method, compared("ann", better=f"It is {number}.", worse="No idea."))
        better.append(said(example.rows[0]) != "No idea.")
    assert 18 <= sum(better) <= 42
