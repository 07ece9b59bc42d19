"""Critique in the loop by hand: who is criticised, and what of a refinement is learned."""

import asyncio

from core.codec import unpack_ids
from core.messages import Candidate, Prompt, Sampling
from core.protocols import History, Method, Votes
from methods.explore import settle
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, method

PATTERN = ("method.answer={kind: pattern, pattern: '([rw])$'}", "method.sampler.n=5")


class Critics(ScriptedPolicy):
    """First answers, then critiques, then refinements, each in turn."""

    def __init__(self, first: list[str], refined: list[str]) -> None:
        super().__init__(accuracy={0: 0.5})
        self.first, self.refined, self.chats = list(first), list(refined), list[list[str]]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: object = None) -> list[Candidate]:
        made = await super().generate(prompt, sampling)
        self.chats.append([message.content for message in prompt.messages])
        turn = len(prompt.messages)
        texts = self.first if turn == 1 else ["step 2 is off"] if turn == 3 else [self.refined.pop(0)]
        told = zip(made, texts, strict=True)
        return [c.model_copy(update={"text": t, "finish": "stop", "completion_ids": self._ids(t)}) for c, t in told]

    def _ids(self, text: str) -> bytes:
        from core.codec import pack_ids

        return pack_ids([*text.encode(), 0])


def learned(made: Method, policy: Critics) -> list[str]:
    async def both() -> list[str]:
        groups = await made.sample(PROMPT, policy)
        settled = await settle(made, groups, Votes(), History(), policy)
        plain = groups[0].candidates[0].context_ids
        for example in settled.examples:
            assert example.rows[0].token_ids.startswith(plain), "an example is behind the plain question"
        rows = [example.rows[0] for example in settled.examples]
        return [bytes(i for i in unpack_ids(row.token_ids)[-row.targets :] if i).decode() for row in rows]

    return asyncio.run(both())


def test_losers_are_criticised_and_refinements_that_win_are_learned_as_plain_answers() -> None:
    policy = Critics(["a r", "b w", "c r", "d r", "e w"], ["b2 r", "e2 w"])
    assert learned(method("critic", *PATTERN), policy) == ["a r", "c r", "d r", "b2 r"]
    criticised = [chat[1] for chat in policy.chats if len(chat) == 3]
    assert sorted(criticised) == ["b w", "e w"], "no winner is criticised"
    assert all(chat[3] == "step 2 is off" for chat in policy.chats if len(chat) == 5)


def test_no_more_than_asked_for_are_criticised_and_none_without_a_majority() -> None:
    policy = Critics(["a r", "b w", "c r", "d r", "e w"], ["b2 r"])
    assert learned(method("critic", *PATTERN, "method.options.critiques=1"), policy)[-1] == "b2 r"
    policy = Critics(["?", "?", "?", "?", "?"], [])
    assert learned(method("critic", *PATTERN), policy) == [] and len(policy.chats) == 1


def test_a_refinement_that_leaves_the_steps_out_is_dropped() -> None:
    """The winner has 9 numbers and the loser 8: 5 are too few, 6 are not."""
    nine, eight = " ".join("123456789") + " r", " ".join("12345678") + " w"
    for count, kept in ((5, False), (6, True)):
        short = " ".join("123456"[:count]) + " r"
        policy = Critics([nine, eight, nine, nine, nine], [short])
        assert (short in learned(method("critic", *PATTERN), policy)) is kept
