"""gsi: guided answers for prompts that lack own right texts."""

import asyncio
import re
from collections.abc import Sequence

import pytest

from core.answers import extractor
from core.codec import stable_id
from core.config import PatternAnswer, SamplerConfig, VotesConfig
from core.errors import ConfigError, PromptError
from core.messages import Candidate, Group, PolicyRef, Prompt, Sampling, Scored, Verdict, Vote
from core.protocols import Method, Votes
from methods.explore import NO_HISTORY, Settled, settle
from methods.scorers.guided import Guided, has_step, hinted
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.people import PROMPT, built, group, vote

NUMBER = extractor(PatternAnswer())
SCATTERED = [f"The answer is {i}." for i in (1, 2, 3, 4)]
PEOPLE = tuple(vote(name, answer="5") for name in ("ann", "bob", "cid"))


class Follower(ScriptedPolicy):
    """Follows every hint, in the words of `says`, and keeps what it was asked."""

    def __init__(self, says: str = "2+3={}. The answer is {}.") -> None:
        super().__init__()
        self.explore = PolicyRef(version=4)
        self.accuracy[4] = 0.5
        self.says, self.asked = says, list[Prompt]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        assert sampling.n == 1 and sampling.purpose == "explore"
        self.asked.append(prompt)
        hint = re.search(r"the answer is (\S+)\.", prompt.messages[-1].content)
        assert hint is not None
        text = self.says.replace("{}", hint[1])
        made = await self.render(prompt, text)
        id = stable_id(made.id, str(len(self.asked)))
        return [made.model_copy(update={"id": id, "start": self.explore, "end": self.explore})]


def settled(method: Method, policy: ScriptedPolicy, *cast: Vote, sampled: Sequence[str] = SCATTERED) -> Settled:
    return asyncio.run(settle(method, [group(*sampled)], Votes(cast), NO_HISTORY, policy))


def guided_of(made: Settled) -> Group:
    (group,) = [one.group for one in made.scored[1:]]
    return group


# --- gsi-people ---


def test_an_answer_that_people_know_and_no_sample_reached_becomes_own_words() -> None:
    policy = Follower()
    assert settled(built("lmsi"), policy, *PEOPLE).drops == {"no_winning_candidate": 1}
    made = settled(built("gsi"), policy, *PEOPLE)
    assert len(policy.asked) == 4, "until there are `min_right`"
    assert [c.text for c in guided_of(made).candidates] == ["2+3=5. The answer is 5."] * 4
    assert len(made.examples) == 1, "equal texts are one"
    assert made.examples[0].policy.version == 4 and made.examples[0].by == "sample"


def test_no_context_that_is_learned_from_holds_the_hint() -> None:
    policy = Follower()
    made = settled(built("gsi"), policy, *PEOPLE)
    assert all("Hint: the answer is 5." in prompt.messages[-1].content for prompt in policy.asked)
    own = asyncio.run(policy.render(PROMPT, "2+3=5. The answer is 5."))
    assert made.examples
    for example in made.examples:
        assert example.rows[0].token_ids == own.context_ids + own.completion_ids
    for candidate in guided_of(made).candidates:
        assert candidate.context_ids == own.context_ids
    assert all(one.group.prompt == PROMPT for one in made.scored)


@pytest.mark.parametrize(
    "says",
    ["The answer is {}.", "{}. So the answer is {}. The answer is {}.", "By the hint: {}. The answer is {}."],
)
def test_texts_that_only_repeat_the_answer_or_speak_of_the_hint_are_dropped(says: str) -> None:
    policy = Follower(says)
    made = settled(built("gsi"), policy, *PEOPLE)
    assert len(policy.asked) == 8, "at most `rounds`"
    assert not made.examples and made.drops == {"no_winning_candidate": 2}


def test_a_step_is_anything_beside_the_answer() -> None:
    assert has_step("2+3=5. The answer is 5.", "5") and has_step("It must be 5, as 2 and 3 are. The answer is 5.", "5")
    assert not has_step("5\nThe final answer is 5.", "5") and not has_step("Paris is the answer: Paris", "paris")


def test_an_answer_that_too_few_people_back_is_no_hint() -> None:
    policy = Follower()
    assert not settled(built("gsi"), policy, *PEOPLE[:2]).examples and not policy.asked
    settled(built("gsi"), policy, *PEOPLE, sampled=[*SCATTERED[:3], "2+3=5. The answer is 5."])
    assert not policy.asked, "a sample reached it"
    settled(built("gsi"), policy, vote("ann", candidate_id="3-0"), sampled=["I do not know."])
    assert not policy.asked, "a candidate is no answer"


def test_settling_again_takes_the_guided_answers_from_what_is_known() -> None:
    policy = Follower()
    for says in ("2+3={}. The answer is {}.", "The answer is {}."):
        policy.says, method = says, built("gsi")
        first = settled(method, policy, *PEOPLE)
        asked = len(policy.asked)
        again = asyncio.run(settle(method, [group(*SCATTERED)], Votes(PEOPLE), NO_HISTORY, policy, first.scored))
        assert again == first and len(policy.asked) == asked
    other = [vote(name, answer="7") for name in ("ann", "bob", "cid")]
    asyncio.run(settle(method, [group(*SCATTERED)], Votes(tuple(other)), NO_HISTORY, policy, first.scored))
    assert len(policy.asked) > asked, "another answer is another hint"


def test_a_cut_off_guided_answer_does_not_win() -> None:
    class Cut(Follower):
        async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
            (made,) = await super().generate(prompt, sampling, ref)
            return [made.model_copy(update={"finish": "length"})]

    assert not settled(built("gsi"), Cut(), *PEOPLE).examples


def test_a_hint_that_the_engine_cannot_hold_is_given_up() -> None:
    class Small(Follower):
        async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
            raise PromptError("too long")

    made = settled(built("gsi"), Small(), *PEOPLE)
    assert not made.examples and guided_of(made).candidates == ()


# --- gsi-vote ---


@pytest.mark.parametrize(("right", "need"), [(5, 0), (3, 1), (1, 3)])
def test_the_number_of_guided_answers_worked_by_hand(right: int, need: int) -> None:
    answers = ("5",) * right + tuple(str(100 + i) for i in range(8 - right))
    verdict = Verdict(scores=tuple(float(a == "5") for a in answers), answers=answers, winner="5", share=0.5, margin=0)
    texts = [f"The answer is {a}." for a in answers]
    guided = Guided(NUMBER, VotesConfig(), SamplerConfig(), "vote", min_right=4)
    assert guided.missing([Scored(group=group(*texts), verdict=verdict)], ()) == need
    low = verdict.model_copy(update={"share": 0.49})
    assert guided.missing([Scored(group=group(*texts), verdict=low)], ()) == 0


def test_the_majoritys_answer_is_a_hint_where_few_samples_have_it() -> None:
    policy = Follower("2+3={}, so it is said. The answer is {}.")
    method = built("gsi", "method.options.oracle=vote", "method.options.min_right=6")
    made = settled(method, policy, sampled=["2+3=5. The answer is 5."] * 2 + SCATTERED[:2])
    assert len(policy.asked) == 4 and {one.verdict.share for one in made.scored} == {0.5}
    assert len(made.examples) == 2, "one own text and one guided"
    assert not settled(method, Follower(), sampled=["I do not know."]).examples


def test_settings_that_never_give_a_hint_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_share=0\.5 of .*n=8 is 4 right .*raise min_right above 4"):
        built("gsi", "method.options.oracle=vote")
    assert built("gsi", "method.options.oracle=vote", "method.options.min_right=5")


# --- the null control ---


def test_another_answer_as_the_hint_leaves_the_coverage_unchanged() -> None:
    policy = Follower()
    made = settled(built("gsi", "method.options.wrong_hint=true"), policy, *PEOPLE)
    hints = {prompt.messages[-1].content for prompt in policy.asked}
    assert len(policy.asked) == 8 and len(hints) == 1 and "answer is 5" not in hints.pop()
    assert not made.examples
    alone = Follower()
    settled(built("gsi", "method.options.wrong_hint=true"), alone, *PEOPLE, sampled=["I do not know.", "Hm."])
    assert not alone.asked


def test_a_hint_is_behind_the_last_message_of_a_prompt_of_its_own() -> None:
    told = hinted(PROMPT, "5")
    assert told.id != PROMPT.id and told.origin == "generated"
    assert told.messages[-1].content.startswith(PROMPT.messages[-1].content + "\n\nHint: the answer is 5.")
