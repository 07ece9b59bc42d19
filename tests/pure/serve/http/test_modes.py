"""Serving modes from the method's own sampler and scorer, and what HTTP makes of them."""

import asyncio
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cloudpickle
import httpx
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.answers import extractor
from core.clock import ManualClock
from core.codec import pack_ids
from core.config import AnswerConfig, ChoiceAnswer, MethodConfig, NumberAnswer, SamplerConfig, TextAnswer
from core.errors import PromptError, Unavailable, VersionError
from core.messages import BASE, Candidate, PolicyRef, Prompt, Sampling, Slots
from core.protocols import Mode, ModeAnswer, Policy
from methods.data.prompts import as_prompt
from methods.modes import modes, vote
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.scripted_policy import ScriptedPolicy, right_answer
from serve.engine.local_policy import EnginePolicy
from serve.http.body import parse_object
from serve.http.errors import Refusal
from serve.http.ingress import resolve_model
from serve.http.keys import LOCAL
from serve.http.limits import read_body
from serve.http.modes import Modes, parse_model
from serve.http.pinned_policy import PinnedPolicy
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
        return [self._candidate(i, text) for i, text in enumerate(self._texts)]

    def _candidate(self, index: int, text: str) -> Candidate:
        start, end = self.made_by
        return Candidate(
            id=str(index),
            start=start,
            end=end,
            context_ids=pack_ids(range(5)),
            completion_ids=pack_ids(range(10)),
            text=text,
            finish="length" if index in self._cut else "stop",
            render_id="recorded",
        )


def said(*texts: str, cut: tuple[int, ...] = (), answer: AnswerConfig | None = None) -> ModeAnswer:
    policy: Any = Recorded(*texts, cut=cut)
    score = Majority(extractor(answer or NumberAnswer()))
    return asyncio.run(vote(Iid(SamplerConfig(n=len(texts))), score, as_prompt("?"), policy))


def front(mode: Mode, policy: Policy | Any) -> ASGIApp:
    """What the ingress does with a request for a mode."""
    told = iter(range(99))
    answers = Modes({"vote": mode}, policy, lambda: f"answer-{next(told)}", ManualClock(7.9))
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


# --- the vote ---


def test_the_answer_is_the_first_sample_that_says_what_most_say() -> None:
    assert said("I say 4", "it is 5", "so 7", "that is 5") == ModeAnswer(text="it is 5", finish="stop", share=0.5)


def test_a_sample_without_an_answer_makes_the_share_smaller_and_never_wins() -> None:
    assert said("no idea", "no idea", "no idea", "it is 5") == ModeAnswer(text="it is 5", finish="stop", share=0.25)


def test_where_no_sample_has_an_answer_the_first_whole_one_is_given_with_a_share_of_nothing() -> None:
    assert said("no id", "no idea", "none", cut=(0,)) == ModeAnswer(text="no idea", finish="stop", share=0.0)
    assert said("it is 5", "it is 6", cut=(0, 1)) == ModeAnswer(text="it is 5", finish="length", share=0.0)


def test_free_form_answers_vote_by_what_they_say() -> None:
    found = said("Rome.", "Paris, France!", "paris france", answer=TextAnswer())
    assert (found.text, round(found.share, 2)) == ("Paris, France!", 0.67)


def right_ratio(n: int, accuracy: float, prompts: int = 300) -> float:
    policy = ScriptedPolicy(seed=1, accuracy={0: accuracy})
    asked = [as_prompt(f"question {i}") for i in range(prompts)]
    mode = partial(vote, Iid(SamplerConfig(n=n)), Majority(ANSWERS))

    async def right(prompt: Prompt) -> bool:
        return ANSWERS((await mode(prompt, policy)).text) == right_answer(prompt)

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
    assert modes(MethodConfig(sampler=sampler)) == {}


@pytest.mark.parametrize("answer", [MethodConfig().answer, ChoiceAnswer(), NumberAnswer(), TextAnswer()])
def test_modes_travel_to_a_replica(answer: AnswerConfig) -> None:
    packed = cloudpickle.dumps(modes(MethodConfig(answer=answer)))
    mode: Mode = pickle.loads(packed)["vote"]
    policy: Any = Recorded("(B) 2", "(B) 2", "(A) 1")
    assert asyncio.run(mode(as_prompt("?"), policy)).text == "(B) 2"


# --- as a chat completion ---


def test_an_answer_has_openais_shape_and_counts_every_hidden_token() -> None:
    policy = ScriptedPolicy(accuracy={3: 0.9})
    reply = post(front(VOTE, policy))
    answer = ChatCompletion.model_validate(reply.json(), strict=True)
    assert reply.status_code == 200 and answer.usage is not None
    assert answer.usage.completion_tokens == policy.tokens["explore"] > 8 * 10
    assert answer.usage.prompt_tokens == len("How many?")
    assert answer.usage.total_tokens == answer.usage.completion_tokens + answer.usage.prompt_tokens
    assert (answer.id, answer.created, answer.model) == ("answer-0", 7, "policy@v3:vote")
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content and ANSWERS(answer.choices[0].message.content)
    assert reply.json()["vote"]["asked"] == 8 and reply.json()["vote"]["share"] >= 0.5


def test_the_version_that_admitted_the_request_is_asked_and_named() -> None:
    policy = Recorded("The answer is 1.")
    reply = post(front(VOTE, policy))
    ((prompt, sampling, ref),) = policy.asked
    assert ref == V3 and reply.json()["system_fingerprint"] == "policy@v3"
    assert reply.headers["x-policy-version"] == "3" and reply.headers["x-policy-replica"] == "replica"
    assert prompt.origin == "live" and prompt.id == as_prompt("How many?").id
    assert (sampling.n, sampling.temperature, sampling.max_tokens, sampling.seed) == (8, 0.7, 110, None)
    assert post(front(VOTE, policy), model="policy@v0:vote").json()["model"] == "policy@v0:vote"
    assert policy.asked[-1][2] == BASE


def test_a_swap_under_the_request_is_named_as_a_range() -> None:
    policy = Recorded("The answer is 1.")
    policy.made_by = (V3, PolicyRef(version=4))
    assert post(front(VOTE, policy)).json()["system_fingerprint"] == "policy@v3..v4"
    policy.made_by = (PolicyRef(version=4), PolicyRef(version=4))  # swapped after admission, before the first token
    assert post(front(VOTE, policy)).json()["system_fingerprint"] == "policy@v4"


def test_the_share_is_in_the_header_and_in_the_body() -> None:
    reply = post(front(VOTE, Recorded(*["The answer is 1."] * 3, "what?")))
    assert reply.headers["x-vote-share"] == "0.75" and reply.json()["vote"] == {"share": 0.75, "asked": 4}


def test_what_the_client_wants_of_each_sample_goes_before_what_is_configured() -> None:
    policy = Recorded("The answer is 1.")
    post(front(VOTE, policy), temperature=0.3, top_p=0.9, max_tokens=40, seed=5)
    assert policy.asked[0][1] == Sampling(n=8, temperature=0.3, top_p=0.9, max_tokens=40, seed=5)
    post(front(VOTE, policy), max_tokens=40, max_completion_tokens=50, temperature=None)
    assert policy.asked[1][1] == Sampling(n=8, temperature=0.7, max_tokens=50)


def test_an_answer_can_be_sent_back_as_part_of_a_chat() -> None:
    policy = Recorded("The answer is 1.")
    first = post(front(VOTE, policy)).json()["choices"][0]["message"]
    chat = [*QUESTION["messages"], {**first, "tool_calls": []}, {"role": "user", "content": "Sure?"}]
    assert post(front(VOTE, policy), messages=chat).status_code == 200
    assert [message.role for message in policy.asked[1][0].messages] == ["user", "assistant", "user"]


def test_usage_counts_every_call_of_a_mode_that_asks_twice() -> None:
    async def twice(prompt: Prompt, policy: Policy) -> ModeAnswer:
        await policy.generate(prompt, Sampling(n=2))
        (last, *_) = await policy.generate(prompt, Sampling(n=2))
        return ModeAnswer(last.text, last.finish, 1.0)

    usage = post(front(twice, Recorded("a", "b"))).json()["usage"]
    assert usage == {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}


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
    assert (end.model_extra or {})["vote"] == {"share": 1.0, "asked": 2}
    assert not usage.choices and usage.usage is not None and usage.usage.completion_tokens == 20
    assert opening.usage is None and {one.id for one in (opening, content, end, usage)} == {"answer-0"}
    assert content.system_fingerprint == "policy@v3" and reply.headers["x-vote-share"] == "1.0"


def test_a_stream_without_usage_asked_for_has_none() -> None:
    chunks = list(events(post(front(VOTE, Recorded("The answer is 1.")), stream=True)))
    assert len(chunks) == 3 and not any("usage" in chunk.model_fields_set for chunk in chunks)


# --- what is refused ---


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


def request(gone: asyncio.Event) -> Receive:
    body: list[Message] = [{"type": "http.request", "body": json.dumps(QUESTION).encode()}]

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
    policy = PinnedPolicy(ScriptedPolicy(accuracy={0: 0.5, 3: 0.5}), V3, {})
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
