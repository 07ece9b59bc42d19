"""Debates by hand: who reads what, who wins, and which answers are learned behind what."""

import asyncio

from core.codec import unpack_ids
from core.messages import Candidate, Group, PolicyRef, Prompt, Sampling
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, correction, method, settled

OPTIONS = ("method.answer={kind: number}", "method.options.min_share=0")


class Agents(ScriptedPolicy):
    """Agent i says `rounds[r][i]` in round r; its texts name it."""

    def __init__(self, *rounds: tuple[int, ...]) -> None:
        super().__init__()
        self.rounds, self.read = rounds, list[Prompt]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        made = await super().generate(prompt, sampling, ref)
        self.read.append(prompt)
        turn = len(prompt.messages) // 2
        own = [int(prompt.messages[1].content[6])] if turn else list(range(len(made)))
        texts = [f"Agent {i} says {self.rounds[turn][i]}" for i in own]
        told = zip(made, texts, strict=True)
        return [c.model_copy(update={"text": t, "completion_ids": self._ids(t), "finish": "stop"}) for c, t in told]

    def _ids(self, text: str) -> bytes:
        from core.codec import pack_ids

        return pack_ids([*text.encode(), 0])


def debate(*rounds: tuple[int, ...], more: tuple[str, ...] = ()) -> tuple[list[Group], Agents]:
    policy = Agents(*rounds)
    options = (f"method.sampler.n={len(rounds[0])}", f"method.options.rounds={len(rounds)}", *more)
    return asyncio.run(method("multiagent", *OPTIONS, *options).sample(PROMPT, policy)), policy


def learned(groups: list[Group], *more: str) -> list[tuple[str, int]]:
    """The learned text of each example, and the number of messages of its chat."""
    chats = {group.id: len(group.prompt.messages) for group in groups}
    examples = settled(method("multiagent", *OPTIONS, *more), *groups).examples
    return [(said(e.rows[0].token_ids, e.rows[0].targets), chats[e.group_id]) for e in examples]


def said(ids: bytes, targets: int) -> str:
    return bytes(i for i in unpack_ids(ids)[-targets:] if i).decode()


def test_each_agent_is_asked_once_a_round_and_reads_the_others_and_never_itself() -> None:
    groups, policy = debate((5, 7, 6), (5, 5, 6), (5, 5, 5))
    assert len(policy.read) == 1 + 3 + 3 and [len(group.candidates) for group in groups] == [3, *[1] * 6]
    for group in groups[1:4]:
        _, own, shown = (message.content for message in group.prompt.messages)
        texts = {"Agent 0 says 5", "Agent 1 says 7", "Agent 2 says 6"}
        assert own in texts and own not in shown and all(text in shown for text in texts - {own})
    assert all(len(group.prompt.messages) == 5 for group in groups[4:])
    last = {group.parent for group in groups[4:]}
    assert last == {group.candidates[0].id for group in groups[1:4]}, "who goes on from whom"


def test_generators_and_critics_worked_by_hand() -> None:
    """Round 1: 5, 7, 5. Round 2: 5, 5, 5. Generators: agents 0 and 2. C-: agent 1; C+: at most one of the others."""
    groups, _ = debate((5, 7, 5), (5, 5, 5))
    found = learned(groups)
    assert found[:3] == [("Agent 0 says 5", 1), ("Agent 2 says 5", 1), ("Agent 1 says 5", 3)]
    assert found[3:] in ([], [("Agent 0 says 5", 3)], [("Agent 2 says 5", 3)])
    assert learned(groups, "method.options.critics=false") == found[:2]
    assert learned(groups, "method.options.generators=false") == found[2:]


def test_the_last_answers_alone_elect_and_all_are_judged_by_them() -> None:
    groups, _ = debate((7, 7, 7, 5), (5, 5, 5, 7))
    scored = settled(method("multiagent", *OPTIONS), *groups).scored
    assert {one.verdict.winner for one in scored} == {"5"} and scored[0].verdict.share == 3 / 4
    assert scored[0].verdict.scores == (0, 0, 0, 1) and [one.verdict.scores for one in scored[1:]] == [(1,)] * 3 + [
        (0,)
    ]
    assert learned(groups)[0] == ("Agent 3 says 5", 1), (
        "right at first, wrong in the end: it generates, it criticises not"
    )
    assert [text for text, chat in learned(groups) if chat == 3] == [f"Agent {i} says 5" for i in range(3)]


def test_of_those_that_stay_right_half_as_many_are_learned_as_corrected_themselves() -> None:
    counts = list[int]()
    for name in range(60):
        groups, _ = debate((7, 7, 7, 7, 5, 5, 5, 5), (5,) * 8)
        renamed = [_renamed(group, name) for group in groups]
        steady = [t for t, chat in learned(renamed, "method.options.generators=false") if t[6] in "4567"]
        assert len(set(steady)) == len(steady) <= 4
        counts.append(len(steady))
    assert 1.6 < sum(counts) / len(counts) < 2.4 and len(set(counts)) > 2


def _renamed(group: Group, number: int) -> Group:
    def name(of: str | None) -> str | None:
        return None if of is None else f"{number}-{of}"

    made = tuple(c.model_copy(update={"id": name(c.id)}) for c in group.candidates)
    return group.model_copy(update={"candidates": made, "parent": name(group.parent)})


def test_nobody_who_was_right_from_the_beginning_and_no_agreement_at_all() -> None:
    groups, _ = debate((7, 7), (5, 5))
    assert learned(groups) == [("Agent 0 says 5", 3), ("Agent 1 says 5", 3)]
    cut = [g.model_copy(update={"candidates": tuple(_cut(c) for c in g.candidates)}) for g in groups]
    assert learned(cut) == []


def _cut(candidate: Candidate) -> Candidate:
    return candidate.model_copy(update={"finish": "length"})


def test_a_text_that_people_wrote_is_learned_as_it_is() -> None:
    groups, _ = debate((7, 5), (7, 5))
    made = settled(method("multiagent", *OPTIONS), *groups, votes=[correction("It is 5")])
    assert [example.by for example in made.examples].count("person") == 1
