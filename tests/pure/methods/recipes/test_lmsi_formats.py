import asyncio
from collections import Counter

import pytest

from core.answers import extractor
from core.codec import unpack_ids
from core.config import PatternAnswer, SamplerConfig
from core.errors import ConfigError, PromptError
from core.messages import Candidate, PolicyRef, Prompt, Sampling, Vote
from methods.askers.questions import EXAMPLES, Questions, written_in
from methods.data.prompts import as_prompt
from methods.explore import Settled
from methods.scorers.formats import Format, reworded
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.texts import built, group, learned, settled

EXTRACT = extractor(PatternAnswer())
SHOT = [
    {"role": "user", "content": "1 and 1?"},
    {"role": "assistant", "content": "One and one more. The answer is 2."},
]
ASKED = {"role": "user", "content": "3 and 4?"}
BARE = as_prompt([ASKED])
SHOWN = as_prompt([*SHOT, ASKED], system="Be brief.")
PATHS = ["3 and 4 is 7. The answer is 7.", "Four and three. The answer is 7."]
LOSING = "The answer is 9."


def items(made: Settled) -> dict[tuple[str, str], float]:
    """(Last message that is asked, learned text) -> weight."""
    found: dict[tuple[str, str], float] = {}
    prompts = {scored.group.id: scored.group.prompt for scored in made.scored}
    for example in made.examples:
        row = example.rows[0]
        ids = unpack_ids(row.token_ids)[-row.spans[-1].tokens : -1]
        asked = "/".join(message.content for message in prompts[example.group_id].messages)
        item = (asked, bytes(token - 1 for token in ids).decode())
        found[item] = found.get(item, 0.0) + example.weight
    return found


def told(prompt: Prompt | None) -> list[str] | None:
    return None if prompt is None else [message.content for message in prompt.messages]


def test_a_prompt_in_its_other_formats() -> None:
    ways: list[Format] = [2, 3, 4]
    assert [told(reworded(SHOWN, way, EXTRACT)) for way in ways] == [
        ["Be brief.", "1 and 1?", "The answer is 2.", "3 and 4?"],
        ["Be brief.", "3 and 4?\nLet's think step by step."],
        ["Be brief.", "3 and 4?"],
    ]
    assert [told(reworded(BARE, way, EXTRACT)) for way in ways] == [
        None,
        ["3 and 4?\nLet's think step by step."],
        ["3 and 4?"],
    ]


def test_two_winning_paths_are_eight_items_of_which_six_are_distinct() -> None:
    made = settled(built("lmsi_formats"), group(*PATHS, LOSING, prompt=SHOWN))
    shown, direct = "Be brief./1 and 1?/One and one more. The answer is 2./3 and 4?", "The answer is 7."
    assert items(made) == {
        (shown, PATHS[0]): 1,
        (shown, PATHS[1]): 1,
        ("Be brief./1 and 1?/The answer is 2./3 and 4?", direct): 2,
        ("Be brief./3 and 4?\nLet's think step by step.", PATHS[0]): 1,
        ("Be brief./3 and 4?\nLet's think step by step.", PATHS[1]): 1,
        ("Be brief./3 and 4?", direct): 2,
    }
    assert len(made.examples) == 6 and sum(example.weight for example in made.examples) == 8
    assert [one.verdict.scores for one in made.scored] == [(1, 1, 0), *[(1, 1)] * 3]


def test_a_prompt_without_examples_has_three_formats() -> None:
    made = settled(built("lmsi_formats"), group(*PATHS, LOSING, prompt=BARE))
    assert len(made.examples) == 5 and sum(example.weight for example in made.examples) == 6


def test_losing_and_cut_off_paths_are_in_no_format() -> None:
    made = settled(built("lmsi_formats"), group(PATHS[0], PATHS[0], LOSING, PATHS[1], prompt=BARE, cut=[3]))
    assert set(learned(made)) == {PATHS[0], "The answer is 7."}
    assert not settled(built("lmsi_formats"), group("no", "nothing", prompt=BARE)).examples


def test_examples_are_as_old_as_the_paths_they_are_made_of() -> None:
    method, policy = built("lmsi_formats"), ScriptedPolicy(accuracy={0: 0.5, 3: 0.9})
    made = settled(method, group(*PATHS, prompt=BARE, ref=PolicyRef(version=3)), policy=policy)
    assert {example.policy.version for example in made.examples} == {3} and len(made.examples) == 5
    assert not any(example.fixed for example in made.examples)


def test_the_texts_are_rendered_once() -> None:
    class Counting(ScriptedPolicy):
        rendered = 0

        async def render(self, prompt: Prompt, text: str) -> Candidate:
            self.rendered += 1
            return await super().render(prompt, text)

    method, policy, made = built("lmsi_formats"), Counting(), group(*PATHS, LOSING, prompt=SHOWN)
    first = settled(method, made, policy=policy)
    assert policy.rendered == 6
    assert settled(method, made, policy=policy, known=first.scored) == first and policy.rendered == 6


def test_votes_that_turn_the_ballot_turn_every_format() -> None:
    method, made = built("lmsi_formats"), group(PATHS[0], LOSING, prompt=BARE)
    first = settled(method, made)
    like = Vote(id="v", prompt_id=BARE.id, voter="ann", by="person", candidate_id="g-1")
    again = settled(method, made, like, known=first.scored)
    assert set(learned(again)) == {LOSING} and len(again.examples) == 3


def test_texts_of_people_stay_as_asked() -> None:
    text = "So 7. The answer is 7."
    correction = Vote(id="v", prompt_id=BARE.id, voter="ann", by="person", correction=text)
    made = settled(built("lmsi_formats"), group(*PATHS, prompt=BARE), correction)
    assert learned(made)[text] == 1 and {e.by for e in made.examples if e.weight == 2} == {"sample"}


def test_a_text_that_is_too_long_in_a_format_is_left_out_there() -> None:
    class Narrow(ScriptedPolicy):
        async def render(self, prompt: Prompt, text: str) -> Candidate:
            if "step by step" in prompt.messages[-1].content:
                raise PromptError("too long")
            return await super().render(prompt, text)

    assert len(settled(built("lmsi_formats"), group(*PATHS, prompt=BARE), policy=Narrow()).examples) == 3


def test_the_null_control_teaches_one_random_path_in_the_same_formats() -> None:
    method = built("lmsi_formats", "method.options.unvoted=true")
    winners = Counter[str]()
    for number in range(40):
        made = settled(method, group(*PATHS, LOSING, prompt=BARE, name=f"g{number}"))
        assert len(made.examples) == 3
        winners[made.scored[0].verdict.winner or ""] += 1
    assert winners["9"] > 5 < winners["7"], "the majority does not decide"


# --- questions of its own ---


def test_questions_are_written_after_ten_of_the_data_set_and_from_no_others() -> None:
    policy = ScriptedPolicy(answer=lambda prompt: f"{len(prompt.messages[-1].content)} apples?", accuracy={0: 1.0})
    ask = Questions(SamplerConfig(), 3)
    prompts = [as_prompt([*SHOT, {"role": "user", "content": f"{number} and 4?"}]) for number in range(EXAMPLES)]
    for prompt in prompts[:-1]:
        assert asyncio.run(ask(prompt, policy, [])) == []
    assert asyncio.run(ask(prompts[0], policy, [])) == [], "the same question does not count twice"
    written = asyncio.run(ask(prompts[-1], policy, []))
    assert 1 <= len(written) <= 3 and len({prompt.id for prompt in written}) == len(written)
    for prompt in written:
        assert prompt.origin == "generated" and prompt.messages[:-1] == prompts[0].messages[:-1]
        assert prompt.id == as_prompt([message.model_dump() for message in prompt.messages]).id
        assert asyncio.run(ask(prompt, policy, [])) == []
    calls = policy.calls
    assert asyncio.run(ask(as_prompt("a user's", origin="live"), policy, [])) == []
    assert policy.calls == calls and "a user's" not in ask.recent


def test_only_the_first_whole_question_of_a_text_is_taken() -> None:
    def of(text: str, *cut: int) -> str | None:
        return written_in(group(text, cut=cut).candidates[0])

    assert of(" How many?\n\nQ: And now?") == "How many?" == of("Q: How many?\nA: 7.")
    assert of("How many?\n\nQ: And n", 0) == "How many?"
    assert of("How ma", 0) is None
    assert of("") == ""


def test_a_question_that_is_empty_or_an_example_is_not_asked() -> None:
    class Writing(ScriptedPolicy):
        async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
            return list(group("", "question 3", "A new one?", "A new one?").candidates)

    ask = Questions(SamplerConfig(), 4)
    written = [asyncio.run(ask(as_prompt(f"question {number}"), Writing(), [])) for number in range(EXAMPLES)]
    assert [told(prompt) for prompt in written[-1]] == [["A new one?"]] and not any(written[:-1])


def test_it_writes_no_questions_unless_told_to() -> None:
    assert built("lmsi_formats").ask is None
    assert built("lmsi_formats", "method.options.write=2").ask is not None


def test_what_it_cannot_work_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.options\.formats"):
        built("lmsi_formats", "method.options.formats=[1,2]")
    with pytest.raises(ConfigError, match="recipe lmsi_formats needs different samples to vote"):
        built("lmsi_formats", "method.sampler.n=1")
