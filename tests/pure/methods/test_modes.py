"""What each serving mode asks, in which order, and what it gives: by hand, with a policy that says given texts."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from core.codec import pack_ids
from core.config import MethodConfig
from core.errors import PromptError
from core.messages import BASE, Candidate, ChatMessage, Finish, PolicyRef, Prompt, Sampling
from core.protocols import ModeAnswer
from methods.data.prompts import as_prompt
from methods.modes import modes

QUESTION = as_prompt("Tom has 5 apples and buys 7. How many?")
ALL = modes(MethodConfig())
ALL |= modes(MethodConfig(), ())


def says(number: int) -> str:
    return f"The answer is {number}."


class Saying:
    """Says these texts in turn. A pair of text and finish is cut or whole."""

    def __init__(
        self, *texts: str | tuple[str, Finish], nats: Callable[[Prompt, str], list[float]] | None = None
    ) -> None:
        self._texts = list(texts)
        self._nats = nats
        self.asked: list[tuple[Prompt, Sampling]] = []
        self.longest = 10**6

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        if len(prompt.messages[-1].content) > self.longest:
            raise PromptError("too long")
        self.asked.append((prompt, sampling))
        return [self._candidate(self._texts.pop(0)) for _ in range(sampling.n)]

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        assert self._nats is not None
        return self._nats(prompt, text)

    def _candidate(self, said: str | tuple[str, Finish]) -> Candidate:
        text, finish = said if isinstance(said, tuple) else (said, "stop")
        return Candidate(
            id=f"c{len(self._texts)}",
            start=BASE,
            end=BASE,
            context_ids=pack_ids([1]),
            completion_ids=pack_ids([2]),
            text=text,
            finish=finish,
            render_id="r",
        )

    @property
    def left(self) -> list[Any]:
        return self._texts

    def chats(self) -> list[list[str]]:
        return [[message.content for message in prompt.messages] for prompt, _ in self.asked]


class Heard:
    def __init__(self) -> None:
        self.asides: list[str] = []
        self.best: list[str] = []

    def aside(self, text: str) -> None:
        self.asides.append(text)

    def so_far(self, answer: ModeAnswer) -> None:
        self.best.append(answer.text)


def ask(name: str, policy: Saying, prompt: Prompt = QUESTION, heard: Heard | None = None, **given: Any) -> ModeAnswer:
    mode = ALL[name]
    settings = mode.settings.model_validate(given)
    answer = asyncio.run(mode.answer(mode.shared, prompt, policy, settings, heard or Heard()))  # type: ignore[arg-type]
    assert not policy.left, "it asked less than expected"
    return answer


# --- universal self-consistency ---


def test_usc_gives_the_sample_that_the_judge_names_word_for_word() -> None:
    for named in range(3):
        policy = Saying("one", "two", "three", f"They agree.\nMost consistent: {named}")
        found = ask("usc", policy, n=3)
        shown = policy.chats()[1][-1]
        assert f"Answer {named}:\n{found.text}\n" in shown and found.share is None
        assert policy.asked[1][1].temperature == 0 and "Tom has 5" in shown


@pytest.mark.parametrize("said", ["Most consistent: 7", "I like all.", "", "Most consistent: -1"])
def test_usc_without_a_name_that_can_be_read_gives_the_first_whole_sample(said: str) -> None:
    assert ask("usc", Saying(("cut", "length"), "two", "three", said), n=3) == ModeAnswer("two", "stop", 0.0)


def test_usc_cuts_samples_that_do_not_fit_and_drops_none() -> None:
    policy = Saying("a" * 3000, "b" * 3000, "Most consistent: 0")
    policy.longest = 2000
    found = ask("usc", policy, n=2)
    shown = policy.chats()[-1][-1]
    assert len(shown) <= 2000 and shown.count("a" * 700) == shown.count("b" * 700) == 1 and len(found.text) == 3000


# --- best of n by log-probability ---


@pytest.mark.parametrize(("norm", "winner"), [("none", "short"), ("length", "long")])
def test_bon_by_the_sum_likes_short_samples_and_by_the_mean_does_not(norm: str, winner: str) -> None:
    nats = {"short": [-0.5] * 3, "long": [-0.3] * 6}
    assert ask("bon-logprob", Saying("short", "long", nats=lambda _, text: nats[text]), n=2, norm=norm).text == winner


def test_bon_prefers_whole_samples_and_of_equals_the_first() -> None:
    likely: Callable[[Prompt, str], list[float]] = lambda _, text: [-1.0 if text != "cut" else -0.1]  # noqa: E731
    policy = Saying(("cut", "length"), "first", "second", nats=likely)
    assert ask("bon-logprob", policy, n=3) == ModeAnswer("first", "stop")


# --- with a person's feedback ---


def test_reflect_shows_the_answer_with_its_feedback_and_answers_after_a_reflection() -> None:
    policy, heard = Saying("I added wrongly.", says(12)), Heard()
    found = ask("reflect", policy, heard=heard, feedback="it is not 13", answer=says(13))
    first, second = policy.chats()
    assert first[:2] == [QUESTION.messages[0].content, says(13)] and "it is not 13" in first[2]
    assert second[:3] == first and second[3] == "I added wrongly." and found.text == says(12)
    assert heard.asides == ["I added wrongly."] and policy.asked[1][0].sampled_ids, "its own turn is not read again"


def test_improve_asks_once() -> None:
    answered = ChatMessage(role="assistant", content=says(13))
    chat = QUESTION.model_copy(update={"messages": (*QUESTION.messages, answered)})
    policy = Saying(says(12))
    assert ask("improve", policy, chat, feedback="count again").text == says(12)
    assert policy.chats()[0][1] == says(13) and policy.chats()[0][2].startswith("count again")


@pytest.mark.parametrize("name", ["reflect", "improve"])
def test_without_feedback_or_an_answer_there_is_nothing_to_improve(name: str) -> None:
    with pytest.raises(ValidationError):
        ask(name, Saying())
    with pytest.raises(PromptError, match="end the chat with the assistant's message, or set `answer`"):
        ask(name, Saying(), feedback="wrong")


# --- reviews without help from outside ---


@pytest.mark.parametrize(
    ("turns", "calls"),
    [((says(12), says(12)), 2), ((says(12), says(13), says(14)), 3), (("no idea", "no idea", says(12)), 3)],
)
def test_ioe_decides_in_a_third_turn_only_if_two_answers_differ(turns: tuple[str, ...], calls: int) -> None:
    policy, heard = Saying(*turns), Heard()
    assert ask("ioe", policy, heard=heard).text == turns[-1] and len(policy.asked) == calls
    assert [len(chat) for chat in policy.chats()] == [1, 3, 5][:calls], "one transcript grows"
    assert heard.best == list(turns[:2])


def test_a_turn_that_cannot_be_read_replaces_none_that_can() -> None:
    assert ask("ioe", Saying(says(12), says(13), "no idea")).text == says(13)
    assert ask("self-refine", Saying(says(1), "Verdict: wrong", "no idea"), rounds=1).text == says(1)
    assert ask("critic", Saying(says(1), "wrong", "no idea"), n=1) == ModeAnswer(says(1), "stop", 1.0)
    first, last = [says(5), says(5)], ["no idea", "no idea"]
    assert ask("debate", Saying(*first, *last), agents=2, rounds=2) == ModeAnswer(says(5), "stop", 1.0)


REWRITES = ["A: 5 apples and 7 more?", "B: 5 and 7 apples?", "C: 7 added to 5?"]


@pytest.mark.parametrize(
    ("answers", "rewrites", "given"),
    [((5, 6, 6), 2, 6), ((5, 5), 1, 5), ((5, 6, 7, 8), 3, 5), ((5, 6, 7, 6), 3, 5)],
)
def test_polish_stops_when_two_answers_in_a_row_agree(answers: Sequence[int], rewrites: int, given: int) -> None:
    turns = [says(answers[0])]
    for rewrite, answer in zip(REWRITES, answers[1:], strict=False):
        turns += [rewrite, says(answer)]
    heard = Heard()
    assert ask("polish", Saying(*turns), heard=heard).text == says(given)
    assert heard.asides == REWRITES[:rewrites]


def test_polish_does_not_answer_a_rewrite_that_lost_a_number() -> None:
    policy = Saying(says(5), "How many apples?", "5 apples, 7 more?", says(5))
    assert ask("polish", policy, rewrites=2).text == says(5)
    assert all(chat[-1] != "How many apples?" for chat in policy.chats())
    unreadable = Saying("no idea", REWRITES[0], "no idea")
    assert ask("polish", unreadable, rewrites=1).text == "no idea", "answers that cannot be read agree with none"


def test_self_refine_writes_again_until_its_review_finds_nothing() -> None:
    bad, good = "Verdict: wrong", "Verdict: right"
    policy = Saying(says(1), bad, says(2), bad, says(3), good)
    assert ask("self-refine", policy).text == says(3)
    assert [len(chat) for chat in policy.chats()] == [1, 3, 5, 7, 9, 11]
    assert ask("self-refine", Saying(says(1), "It is fine, I think.")).text == says(1), "no verdict changes nothing"
    assert ask("self-refine", Saying(says(1), bad, says(2)), rounds=1).text == says(2)


def test_self_refine_is_off_unless_asked_for() -> None:
    from core.config import ModesConfig

    assert "self-refine" in ModesConfig().off and "self-refine" not in modes(MethodConfig(), ModesConfig().off)


# --- several samples that are worked on ---


def test_critic_criticises_and_refines_every_sample_and_lets_the_refined_ones_vote() -> None:
    policy, heard = Saying(says(1), says(2), "wrong", says(3), "right", says(3)), Heard()
    found = ask("critic", policy, heard=heard, n=2)
    assert found == ModeAnswer(says(3), "stop", 1.0) and heard.asides == ["wrong", "right"]
    assert sorted(len(chat) for chat in policy.chats()) == [1, 3, 3, 5, 5] and heard.best == [says(1)]
    assert {chat[1] for chat in policy.chats() if len(chat) == 5} == {says(1), says(2)}, "each refines its own"


def test_debate_shows_each_agent_the_others_answers_and_never_its_own() -> None:
    policy = Saying(says(5), says(7), says(6), says(5), says(5), says(7))
    found = ask("debate", policy, agents=3, rounds=2)
    assert found == ModeAnswer(says(5), "stop", 2 / 3, None) and len(policy.asked) == 4
    for own, (_, said, shown) in zip((5, 7, 6), policy.chats()[1:], strict=True):
        assert said == says(own) and says(own) not in shown
        assert all(says(other) in shown for other in {5, 6, 7} - {own})


def test_debias_takes_the_sample_that_the_worst_fault_makes_least_likelier() -> None:
    table = {"rude": (-1.0, -0.2, -3.0), "sly": (-1.0, -3.0, -0.1), "plain": (-2.0, -2.5, -2.4)}

    def nats(prompt: Prompt, text: str) -> list[float]:
        last = prompt.messages[-1].content
        return [table[text][("an insult" in last and 1) or ("a lie" in last and 2) or 0]]

    policy = Saying("rude", "sly", "plain", nats=nats)
    assert ask("debias", policy, n=3, faults=["an insult", "a lie"]).text == "plain"
    policy = Saying("rude", "sly", "plain", nats=nats)
    assert ask("debias", policy, n=3, faults=["an insult"]).text == "sly"


# --- search among steps ---


class Branching:
    """A policy whose answers are a tree: text so far -> next steps. Rollouts take the first step at each state."""

    def __init__(self, tree: dict[str, list[str]]) -> None:
        self.tree, self.calls, self.turn = tree, 0, dict[str, int]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        self.calls += 1
        so_far = "" if prompt.new_messages else prompt.messages[-1].content
        return [self._step(so_far) if sampling.stop else self._rollout(so_far) for _ in range(sampling.n)]

    def _step(self, so_far: str) -> Candidate:
        steps = self.tree[so_far]
        at = self.turn[so_far] = self.turn.get(so_far, -1) + 1
        text = steps[at % len(steps)]
        return self._candidate(so_far, text, "stop_string" if so_far + text in self.tree else "stop")

    def _rollout(self, so_far: str) -> Candidate:
        text = ""
        while so_far + text in self.tree:
            text += self.tree[so_far + text][0]
        return self._candidate(so_far, text, "stop")

    def _candidate(self, so_far: str, text: str, finish: Finish) -> Candidate:
        said = Saying((text, finish))
        return said._candidate((text, finish)).model_copy(update={"id": f"{so_far}|{text}"})


TREE = {
    "": ["I add. ", "I subtract. ", "I guess. "],
    "I add. ": ["5+7=12. ", "5+7=13. "],
    "I add. 5+7=12. ": [says(12)],
    "I add. 5+7=13. ": [says(13)],
    "I subtract. ": [says(2)],
    "I guess. ": [says(12)],
}


def searched(name: str, heard: Heard | None = None, **given: Any) -> tuple[ModeAnswer, Branching]:
    policy: Any = Branching(TREE)
    mode = ALL[name]

    async def search() -> ModeAnswer:
        return await mode.answer(mode.shared, QUESTION, policy, mode.settings.model_validate(given), heard or Heard())

    return asyncio.run(search()), policy


@pytest.mark.parametrize("rule", ["levin", "beam"])
def test_mstar_returns_the_path_whose_steps_reach_what_most_rollouts_reach(rule: str) -> None:
    found, _ = searched("mstar", rule=rule, width=2)
    assert found == ModeAnswer("I add. 5+7=12. " + says(12), "stop")


def test_mstar_that_reaches_no_end_gives_the_vote_of_its_rollouts() -> None:
    heard = Heard()
    found, policy = searched("mstar", heard, width=3, depth=1)
    assert found.text == "I add. 5+7=12. " + says(12) and found.share == pytest.approx(2 / 3)
    assert policy.calls == 1 + 3 and heard.asides == ["2 whole answers", "4 whole answers", "6 whole answers"]


def test_mcts_votes_over_every_whole_answer_and_samples_no_step_twice() -> None:
    found, policy = searched("mcts", simulations=8, root_width=3, width=2)
    assert found.text.endswith(says(12)) and found.share is not None and 0.5 < found.share < 1
    assert policy.turn[""] <= 2 + 4, "three different steps, and at most a few calls for another"
    again, _ = searched("mcts", simulations=1, root_width=1)
    assert again.share == 1.0


def test_a_step_that_always_comes_out_the_same_is_asked_for_five_times_at_most() -> None:
    policy, mode = Branching({"": ["Same. "], "Same. ": [says(12)]}), ALL["mstar"]
    settings = mode.settings.model_validate({"width": 3, "depth": 1, "rollouts": 1})
    asyncio.run(mode.answer(mode.shared, QUESTION, policy, settings, Heard()))  # type: ignore[arg-type]
    assert policy.calls == 5 + 1


# --- iterative deepening ---


class Wordy(Saying):
    """Says words of a token each, as many as it may, until its text is over."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        self.asked.append((prompt, sampling))
        said = min(self.words, sampling.max_tokens)
        self.words -= said
        finish: Finish = "stop" if not self.words else "length"
        made = self._candidate(("w " * said, finish))
        return [made.model_copy(update={"completion_ids": pack_ids(range(said))})]

    async def render(self, prompt: Prompt, text: str) -> Candidate:
        return self._candidate((text, "stop")).model_copy(update={"completion_ids": pack_ids([1, 2, 3, 0])})


def test_idsample_checks_at_growing_bounds_and_counts_no_word_of_the_check() -> None:
    policy = Wordy(10**4)
    found = ask("idsample", policy, first=100, gamma=2, most=1000, trigger="[check]")
    assert [sampling.max_tokens for _, sampling in policy.asked] == [100, 100, 200, 400, 200]
    assert found.finish == "length" and found.text.split("[check]")[:2] == ["w " * 100, "w " * 100]
    assert found.text.count("[check]") == 4 and found.text.count("w ") == 1000
    assert all(len(prompt.messages) == 2 for prompt, _ in policy.asked[1:]), "one answer grows"


def test_idsample_whose_model_ends_early_asks_once() -> None:
    policy = Wordy(60)
    assert ask("idsample", policy, first=100).finish == "stop" and len(policy.asked) == 1
