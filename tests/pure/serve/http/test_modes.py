"""Serving modes from the method's own sampler and scorer, and what HTTP makes of them."""

import asyncio
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.answers import extractor
from core.clock import ManualClock
from core.codec import pack_ids
from core.config import (
    AnswerConfig,
    ChoiceAnswer,
    MethodConfig,
    ModesConfig,
    NumberAnswer,
    SamplerConfig,
    TextAnswer,
    VotesConfig,
)
from core.errors import ConfigError, PromptError, Unavailable, VersionError
from core.messages import BASE, Candidate, PolicyRef, Prompt, Sampling, Slots
from core.protocols import Mode, ModeAnswer, ModeCard, ModeSettings, Policy, Progress
from methods.data.prompts import as_prompt
from methods.modes import modes, names, vote
from methods.recipes import Shared
from methods.scripted_policy import ScriptedPolicy, right_answer
from serve.engine.local_policy import EnginePolicy
from serve.http.body import parse_object
from serve.http.errors import Refusal
from serve.http.ingress import resolve_model
from serve.http.keys import LOCAL
from serve.http.limits import read_body
from serve.http.modes import Modes, parse_model
from serve.http.pinned_policy import Budget, PinnedPolicy
from serve.http.response_tap import ResponseTap
from tests.pure.waiting import until

V3 = PolicyRef(version=3)
ANSWERS = extractor(MethodConfig().answer)
QUESTION: dict[str, Any] = {"model": "policy:vote", "messages": [{"role": "user", "content": "How many?"}]}


class Recorded:
    """A policy that notes what it was asked, and says these texts in turn."""

    def __init__(self, *texts: str, cut: tuple[int, ...] = ()) -> None:
        self._texts, self._cut = texts, cut
        self.asked: list[tuple[Prompt, Sampling, PolicyRef | None]] = []
        self.made_by = (V3, V3)

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        self.asked.append((prompt, sampling, ref))
        before = sum(each.n for _, each, _ in self.asked[:-1])
        places = range(before, before + sampling.n)
        return [self._candidate(i, self._texts[i % len(self._texts)]) for i in places]

    def _candidate(self, index: int, text: str) -> Candidate:
        start, end = self.made_by
        return Candidate(
            id=str(index),
            start=start,
            end=end,
            context_ids=pack_ids(range(5)),
            completion_ids=pack_ids(range(10)),
            text=text,
            finish="length" if index % len(self._texts) in self._cut else "stop",
            render_id="recorded",
        )


def said(*texts: str, cut: tuple[int, ...] = (), answer: AnswerConfig | None = None) -> ModeAnswer:
    policy: Any = Recorded(*texts, cut=cut)
    shared = Shared(SamplerConfig(n=len(texts)), extractor(answer or NumberAnswer()), VotesConfig())
    return asyncio.run(vote.answer(shared, as_prompt("?"), policy, vote.Settings(), Quiet()))


class Quiet:
    """Nobody listens to what a mode tells."""

    def aside(self, text: str) -> None: ...
    def so_far(self, answer: ModeAnswer) -> None: ...


def front(mode: Mode, policy: Policy | Any, config: ModesConfig | None = None) -> ASGIApp:
    """What the ingress does with a request for a mode."""
    told = iter(range(99))
    config = config or ModesConfig()
    answers = Modes({"vote": mode}, policy, lambda: f"answer-{next(told)}", ManualClock(7.9), config)
    slots = Slots(epoch=1, serve=V3, explore=BASE, promoted=(BASE, V3))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            fields = parse_object(await read_body(receive, 2**20))
        except Refusal as refusal:
            return await refusal.response()(scope, receive, send)
        model, mode = parse_model(fields["model"])
        ref = resolve_model(model, slots, answers, LOCAL)
        assert mode is not None
        sending = ResponseTap(send, ref, "replica", lambda: False)
        sending.tokens = await answers.answer(scope, receive, sending, fields, mode, ref)

    return app


def post(app: ASGIApp, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            return await client.post(path, content=json.dumps({**QUESTION, **fields}))

    return asyncio.run(ask())


def refused(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


VOTE = modes(MethodConfig())["vote"]


def mode(answer: Any) -> Mode:
    return Mode(answer, Shared(SamplerConfig(), ANSWERS, VotesConfig()), ModeSettings, ModeCard("a mode", "here"))


async def working(
    shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress
) -> ModeAnswer:
    """Tells of each of five samples, each of 10 tokens at most."""
    for number in range(5):
        (last,) = await policy.generate(prompt, Sampling(n=1, max_tokens=10))
        progress.aside(f"sample {number}")
        progress.so_far(ModeAnswer(last.text, last.finish))
    return ModeAnswer("done", "stop")


# --- the vote ---


def test_the_answer_is_the_first_sample_that_says_what_most_say() -> None:
    assert said("I say 4", "it is 5", "so 7", "that is 5") == ModeAnswer("it is 5", "stop", 0.5, 0.5)


def test_a_sample_without_an_answer_makes_the_share_smaller_and_never_wins() -> None:
    assert said("no idea", "no idea", "no idea", "it is 5") == ModeAnswer("it is 5", "stop", 0.25, 0.25)


def test_where_no_sample_has_an_answer_the_first_whole_one_is_given_with_a_share_of_nothing() -> None:
    assert said("no id", "no idea", "none", cut=(0,)) == ModeAnswer("no idea", "stop", 0.0, 0.0)
    assert said("it is 5", "it is 6", cut=(0, 1)) == ModeAnswer("it is 5", "length", 0.0, 0.0)


def test_free_form_answers_vote_by_what_they_say() -> None:
    found = said("Rome.", "Paris, France!", "paris france", answer=TextAnswer())
    assert (found.text, round(found.share, 2)) == ("Paris, France!", 0.67)


def right_ratio(n: int, accuracy: float, prompts: int = 300) -> float:
    policy = ScriptedPolicy(seed=1, accuracy={0: accuracy})
    asked = [as_prompt(f"question {i}") for i in range(prompts)]
    shared = Shared(SamplerConfig(n=n), ANSWERS, VotesConfig())

    async def right(prompt: Prompt) -> bool:
        found = await vote.answer(shared, prompt, policy, vote.Settings(), Quiet())
        return ANSWERS(found.text) == right_answer(prompt)

    async def ask() -> list[bool]:
        return [await right(prompt) for prompt in asked]

    return sum(asyncio.run(ask())) / prompts


def test_the_vote_is_right_more_often_than_a_sample_and_a_vote_of_one_is_not() -> None:
    alone, together = right_ratio(1, accuracy=0.4), right_ratio(8, accuracy=0.4)
    assert abs(alone - 0.4) < 0.08
    assert together > alone + 0.3


def test_the_vote_finds_nothing_that_no_sample_says() -> None:
    assert right_ratio(8, accuracy=0.0) == 0


@pytest.mark.parametrize("sampler", [SamplerConfig(n=1), SamplerConfig(n=8, temperature=0)])
def test_settings_under_which_every_ballot_is_unanimous_have_no_vote(sampler: SamplerConfig) -> None:
    left = modes(MethodConfig(sampler=sampler))
    assert left.keys() == {"reflect", "improve", "ioe", "idsample", "polish", "self-refine"}
    assert not any(mode.card.samples for mode in left.values())


def test_a_mode_that_is_off_is_not_there_and_an_unknown_one_cannot_be_off() -> None:
    assert set(names()) - modes(MethodConfig(), ("self-refine", "usc")).keys() == {"self-refine", "usc"}
    with pytest.raises(ConfigError, match=r"serve\.modes\.off names votes; the serving modes are: bon-logprob, .*vote"):
        modes(MethodConfig(), ("votes",))


@pytest.mark.parametrize("answer", [MethodConfig().answer, ChoiceAnswer(), NumberAnswer(), TextAnswer()])
def test_modes_travel_to_a_replica(answer: AnswerConfig) -> None:
    packed = cloudpickle.dumps(modes(MethodConfig(answer=answer)))
    mode: Mode = pickle.loads(packed)["vote"]
    policy: Any = Recorded("(B) 2", "(B) 2", "(A) 1")
    given = mode.settings.model_validate({"n": 3})
    assert asyncio.run(mode.answer(mode.shared, as_prompt("?"), policy, given, Quiet())).text == "(B) 2"


# --- as a chat completion ---


def test_an_answer_has_openais_shape_and_counts_every_hidden_token() -> None:
    policy = ScriptedPolicy(accuracy={3: 0.9})
    reply = post(front(VOTE, policy))
    answer = ChatCompletion.model_validate(reply.json(), strict=True)
    assert reply.status_code == 200 and answer.usage is not None
    assert answer.usage.completion_tokens == policy.tokens["explore"] > 5 * 10
    assert answer.usage.prompt_tokens == len("How many?")
    assert answer.usage.total_tokens == answer.usage.completion_tokens + answer.usage.prompt_tokens
    assert (answer.id, answer.created, answer.model) == ("answer-0", 7, "policy@v3:vote")
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content and ANSWERS(answer.choices[0].message.content)
    told = reply.json()["vote"]
    assert 5 <= told["asked"] <= 8 and told["share"] >= told["least_share"] >= 0.5


def test_the_version_that_admitted_the_request_is_asked_and_named() -> None:
    policy = Recorded("The answer is 1.")
    reply = post(front(VOTE, policy))
    ((prompt, sampling, ref),) = policy.asked  # five that agree decide a ballot of eight
    assert ref == V3 and reply.json()["system_fingerprint"] == "policy@v3"
    assert reply.headers["x-policy-version"] == "3" and reply.headers["x-policy-replica"] == "replica"
    assert prompt.origin == "live" and prompt.id == as_prompt("How many?").id
    assert (sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed) == (5, 0.7, 110, None)
    assert post(front(VOTE, policy), model="policy@v0:vote").json()["model"] == "policy@v0:vote"
    assert policy.asked[-1][2] == BASE


def test_a_swap_under_the_request_is_named_as_a_range() -> None:
    policy = Recorded("The answer is 1.")
    policy.made_by = (V3, PolicyRef(version=4))
    assert post(front(VOTE, policy)).json()["system_fingerprint"] == "policy@v3..v4"
    policy.made_by = (PolicyRef(version=4), PolicyRef(version=4))  # swapped after admission, before the first token
    assert post(front(VOTE, policy)).json()["system_fingerprint"] == "policy@v4"


def test_the_share_is_in_the_header_and_in_the_body() -> None:
    reply = post(front(VOTE, Recorded(*["The answer is 1."] * 3, "what?")), vote={"n": 4})
    assert reply.headers["x-vote-share"] == "1.0"
    assert reply.json()["vote"] == {"share": 1.0, "least_share": 0.75, "asked": 3}, "the fourth could not change it"
    reply = post(front(VOTE, Recorded("what?", "what?", *["The answer is 1."] * 2)), vote={"n": 4})
    assert reply.headers["x-vote-share"] == "0.5"
    assert reply.json()["vote"] == {"share": 0.5, "least_share": 0.5, "asked": 4}


def test_what_the_client_wants_of_each_sample_goes_before_what_is_configured() -> None:
    policy = Recorded("The answer is 1.")
    post(front(VOTE, policy), temperature=0.3, top_p=0.9, max_tokens=40, seed=5)
    assert policy.asked[0][1] == Sampling(n=5, temperature=0.3, top_p=0.9, max_tokens=40, seed=5)
    post(front(VOTE, policy), max_tokens=40, max_completion_tokens=50, temperature=None)
    assert policy.asked[1][1] == Sampling(n=5, temperature=0.7, max_tokens=50)
    policy = Recorded("The answer is 1.", "The answer is 2.")
    post(front(VOTE, policy), seed=5)
    assert [(each.n, each.seed) for _, each, _ in policy.asked] == [(5, 5), (3, 10)], "no sample is drawn twice"


def test_an_answer_can_be_sent_back_as_part_of_a_chat() -> None:
    policy = Recorded("The answer is 1.")
    first = post(front(VOTE, policy)).json()["choices"][0]["message"]
    chat = [*QUESTION["messages"], {**first, "tool_calls": []}, {"role": "user", "content": "Sure?"}]
    assert post(front(VOTE, policy), messages=chat).status_code == 200
    assert [message.role for message in policy.asked[1][0].messages] == ["user", "assistant", "user"]


def test_usage_counts_every_call_of_a_mode_that_asks_twice() -> None:
    async def twice(
        shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress
    ) -> ModeAnswer:
        await policy.generate(prompt, Sampling(n=2))
        (last, *_) = await policy.generate(prompt, Sampling(n=2))
        return ModeAnswer(last.text, last.finish, 1.0)

    usage = post(front(mode(twice), Recorded("a", "b"))).json()["usage"]
    assert usage == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}, "one context, read once"


# --- as a stream ---


def events(reply: httpx.Response) -> Iterator[ChatCompletionChunk]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    *lines, last, _ = reply.text.split("\n\n")
    assert last == "data: [DONE]"
    return (ChatCompletionChunk.model_validate_json(line.removeprefix("data: "), strict=True) for line in lines)


def test_a_stream_says_who_speaks_then_the_answer_then_the_end_then_the_usage() -> None:
    app = front(VOTE, Recorded("The answer is 1.", "The answer is 1."))
    reply = post(app, stream=True, stream_options={"include_usage": True})
    opening, content, end, usage = events(reply)
    assert opening.choices[0].delta.role == "assistant" and content.choices[0].delta.content == "The answer is 1."
    assert end.choices[0].finish_reason == "stop" and end.choices[0].delta.content is None
    assert (end.model_extra or {})["vote"] == {"share": 1.0, "least_share": 0.625, "asked": 5}
    assert not usage.choices and usage.usage is not None and usage.usage.completion_tokens == 50
    assert opening.usage is None and {one.id for one in (opening, content, end, usage)} == {"answer-0"}
    assert content.system_fingerprint == "policy@v3" and reply.headers["x-vote-share"] == "1.0"


def test_a_stream_without_usage_asked_for_has_none() -> None:
    chunks = list(events(post(front(VOTE, Recorded("The answer is 1.")), stream=True)))
    assert len(chunks) == 3 and not any("usage" in chunk.model_fields_set for chunk in chunks)


def test_hidden_work_is_sent_only_to_a_client_that_asks_to_see_it() -> None:
    app = front(mode(working), Recorded("a"))
    opening, *asides, content, end = events(post(app, stream=True, vote={"show": True}))
    said = [(aside.choices[0].delta.model_extra or {})["reasoning_content"] for aside in asides]
    assert said == [f"sample {number}\n\n" for number in range(5)] and opening.choices[0].delta.role == "assistant"
    assert (content.choices[0].delta.content, end.choices[0].finish_reason) == ("done", "stop")
    assert len(list(events(post(app, stream=True)))) == 3
    message = post(app, vote={"show": True}).json()["choices"][0]["message"]
    assert message["reasoning_content"] == "\n\n".join(f"sample {number}" for number in range(5))
    assert "reasoning_content" not in post(app).json()["choices"][0]["message"]


def test_what_fails_after_hidden_work_was_shown_ends_the_stream_with_the_error() -> None:
    async def failing(
        shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress
    ) -> ModeAnswer:
        progress.aside("so far, so good")
        raise Unavailable("the engine is gone")

    reply = post(front(mode(failing), Recorded("a")), stream=True, vote={"show": True})
    *_, error, last, _ = reply.text.split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["message"] == "the engine is gone"
    assert last == "data: [DONE]"
    assert post(front(mode(failing), Recorded("a")), stream=True).status_code == 503


# --- the budget ---


def test_a_budget_that_ends_in_between_gives_the_best_so_far_and_says_so() -> None:
    policy = Recorded("a", "b", "c", "d")
    reply = post(front(mode(working), policy), vote={"budget_tokens": 35}).json()
    assert reply["choices"][0]["message"]["content"] == "c" and reply["choices"][0]["finish_reason"] == "length"
    assert "up to 10 tokens after 30 could pass the request's budget of 35" in reply["vote"]["budget_spent"]
    assert len(policy.asked) == 3 and reply["usage"]["completion_tokens"] == 30
    few = post(front(mode(working), Recorded("a", "b"), ModesConfig(budget_samples=2))).json()
    assert few["choices"][0]["message"]["content"] == "b" and "budget_samples" in few["vote"]["budget_spent"]


def test_turns_that_outgrow_the_engine_give_the_best_so_far_and_say_so() -> None:
    async def growing(shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress) -> Any:
        (first,) = await policy.generate(prompt, Sampling(n=1))
        progress.so_far(ModeAnswer(first.text, first.finish))
        raise PromptError("the context has 300 tokens")

    reply = post(front(mode(growing), Recorded("a"))).json()
    assert reply["choices"][0]["message"]["content"] == "a" and reply["choices"][0]["finish_reason"] == "length"
    assert reply["vote"]["budget_spent"] == "the context has 300 tokens"


def test_no_request_may_ask_for_more_than_the_configured_budget() -> None:
    reply = post(front(mode(working), Recorded("a"), ModesConfig(budget_tokens=20)), vote={"budget_tokens": 10**6})
    assert "budget of 20" in reply.json()["vote"]["budget_spent"]


def test_a_budget_too_small_for_the_first_call_is_refused_with_the_remedy() -> None:
    policy = Recorded("a")
    error = refused(post(front(mode(working), policy), vote={"budget_tokens": 9}))
    assert "lower max_tokens, or raise budget_tokens" in error["message"] and not policy.asked


# --- what is refused ---


@pytest.mark.parametrize("given", [{"n": 1}, {"n": 65}, {"votes": 3}, [3], "3", {"budget_tokens": 0}], ids=repr)
def test_what_a_mode_does_not_take_is_refused_with_what_it_takes(given: Any) -> None:
    policy = Recorded("The answer is 1.")
    error = refused(post(front(VOTE, policy), vote=given))
    assert error["param"] == "vote" and "the mode `vote` takes show, budget_tokens, n" in error["message"]
    assert not policy.asked


def test_an_unknown_mode_is_refused_with_the_list() -> None:
    error = refused(post(front(VOTE, Recorded("1")), model="policy:votes"))
    assert error["message"] == "there is no serving mode `votes`; available: vote" and error["param"] == "model"


def test_a_model_name_splits_at_its_last_colon() -> None:
    assert parse_model("policy@v3:vote") == ("policy@v3", "vote") and parse_model("policy") == ("policy", None)
    assert parse_model(None) == (None, None) and parse_model("a:b:c") == ("a:b", "c")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"stop": ["\n"]},
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 0.5},
        {"logit_bias": {"1": 2}},
        {"echo": False},
        {"temperature": 0},
        {"temperature": float("nan")},
        {"temperature": "warm"},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_completion_tokens": 1.5},
        {"seed": 2**63},
        {"stream": "perhaps"},
        {"messages": []},
        {"messages": "How many?"},
        {"messages": [{"role": "tool", "content": "5"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"\ud800": 1},
    ],
    ids=repr,
)
def test_a_parameter_that_a_mode_cannot_honour_is_refused_by_name(fields: dict[str, Any]) -> None:
    policy = Recorded("The answer is 1.")
    error = refused(post(front(VOTE, policy), **fields))
    (name,) = (name.encode(errors="backslashreplace").decode() for name in fields)
    assert error["param"] == name and name in error["message"] and not policy.asked


@pytest.mark.parametrize(
    "fields",
    [{"n": 1}, {"n": None}, {"stop": None}, {"tools": []}, {"logprobs": False}, {"user": "ann"}, {"store": False}],
    ids=repr,
)
def test_what_asks_for_nothing_is_not_refused(fields: dict[str, Any]) -> None:
    assert post(front(VOTE, Recorded("The answer is 1.")), **fields).status_code == 200


def test_a_mode_on_the_other_route_says_which_is_right() -> None:
    error = refused(post(front(VOTE, Recorded("1")), path="/v1/completions", prompt="How many?"))
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(PromptError("too long"), 400), (Unavailable("gone"), 503), (VersionError("policy@v3 is not loaded"), 503)],
)
def test_what_fails_has_a_status_and_openais_shape_even_as_a_stream(error: Exception, status: int) -> None:
    policy = ScriptedPolicy(accuracy={3: 1.0}, fail=lambda prompt, call: error)
    found = refused(post(front(VOTE, policy), stream=True), status)
    assert str(error) in found["message"] and found["code"] == status


# --- a client that leaves ---


@dataclass
class Held:
    """A policy that never answers, and knows how many ask it."""

    asking: int = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        with self._counted():
            await asyncio.Event().wait()
        return []

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.asking += 1
        try:
            yield
        finally:
            self.asking -= 1


def request(gone: asyncio.Event, asked: dict[str, Any] = QUESTION) -> Receive:
    body: list[Message] = [{"type": "http.request", "body": json.dumps(asked).encode()}]

    async def receive() -> Message:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


SCOPE: Mapping[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}


async def test_a_client_that_leaves_ends_the_sampling_and_is_told_nothing() -> None:
    policy, gone, sent = Held(), asyncio.Event(), list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    asking = asyncio.create_task(front(VOTE, policy)(dict(SCOPE), request(gone), send))  # type: ignore[arg-type]
    await until(lambda: policy.asking)
    gone.set()
    async with asyncio.timeout(5):
        await asking
    assert policy.asking == 0 and not sent


async def test_a_client_that_leaves_while_it_is_shown_hidden_work_ends_the_sampling() -> None:
    policy, gone, sent = Held(), asyncio.Event(), list[Message]()

    async def tells(shared: Shared, prompt: Prompt, policy: Policy, given: ModeSettings, progress: Progress) -> Any:
        progress.aside("at work")
        await policy.generate(prompt, Sampling(n=1))

    async def send(message: Message) -> None:
        sent.append(message)

    body = {**QUESTION, "stream": True, "vote": {"show": True}}
    asking = asyncio.create_task(front(mode(tells), policy)(dict(SCOPE), request(gone, body), send))  # type: ignore[arg-type]
    await until(lambda: policy.asking and any(b"at work" in message.get("body", b"") for message in sent))
    gone.set()
    async with asyncio.timeout(5):
        await asking
    assert policy.asking == 0


async def test_a_server_that_ends_the_request_ends_the_sampling() -> None:
    policy = Held()

    async def send(message: Message) -> None: ...

    asking = asyncio.create_task(front(VOTE, policy)(dict(SCOPE), request(asyncio.Event()), send))  # type: ignore[arg-type]
    await until(lambda: policy.asking)
    asking.cancel()
    await asyncio.wait({asking})
    assert policy.asking == 0 and asking.cancelled()


# --- the policies that a mode gets ---


async def test_scoring_pins_the_version_and_counts_what_is_read() -> None:
    policy = PinnedPolicy(ScriptedPolicy(accuracy={0: 0.5, 3: 0.5}), V3, None, Budget(9, 9))
    found = await policy.logprobs(as_prompt("?"), "four")
    assert policy.prompt_tokens == len(found) == 5 and not policy.tokens and policy.versions == "policy@v3"


async def test_a_policy_on_an_engine_asks_at_its_priority() -> None:
    class Engine:
        async def generate(self, context: Any, sampling: Sampling, ref: PolicyRef, *, priority: int) -> list[Candidate]:
            raise Unavailable(f"{ref} at {priority}")

    engine: Any = Engine()
    with pytest.raises(Unavailable, match="policy@v3 at 10"):
        await EnginePolicy(engine, priority=10).generate(as_prompt("?"), Sampling(), V3)


def test_a_refusal_can_say_what_utf_8_cannot() -> None:
    body = json.loads(bytes(Refusal(404, "no \ud800", param="\udc00").response().body))
    assert body["error"]["message"] == "no \\ud800" and body["error"]["param"] == "\\udc00"
