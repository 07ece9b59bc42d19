"""Feedback on answers, from its JSON to the votes that collectors count: with all actors in one process."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect.export_data import export
from actors.inspect.trace import trace, voters
from actors.people.feedback import ASK_AGAIN_S, FeedbackDesk
from actors.replay.buffer import Buffer
from actors.runtime.ports import BallotPort, StorePort
from actors.runtime.rpc import LocalCall
from actors.storage.store import Store
from core import config as configuration
from core.aio import Batcher
from core.clock import Clock, ManualClock
from core.config import Config
from core.errors import ArtifactError, ConfigError, Missing, Overdue, RatchetError, VersionError
from core.messages import Response, Vote
from core.metrics import Metrics
from core.proxy import proxy
from core.redact import redactor
from core.store.facts import FirstVote
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from serve.http.errors import Refusal
from serve.http.feedback import WAYS, FeedbackBody, FeedbackClient, Results, Submission, parse
from serve.http.recorder import Recorder, Transcript

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=5
)


def settings(folder: Path, *overrides: str) -> Config:
    pq.write_table(pa.table({"prompt": [f"pool question {i}" for i in range(400)]}), folder / "pool.parquet")
    base = [f"prompts.path={folder}/pool.parquet", "gate.enabled=false", "gate.anchors=null", "report.questions=null"]
    return configuration.load(None, [*base, "learning.groups_per_window=16", *overrides])


def policy() -> ScriptedPolicy:
    return ScriptedPolicy(0, dict.fromkeys(range(99), 0.5))


@asynccontextmanager
async def running(folder: Path, *overrides: str, until: str = "leased") -> AsyncIterator[LocalSystem]:
    """`until`: what the buffer's status has to show first."""
    system = LocalSystem(
        settings(folder, *overrides),
        folder,
        policy(),
        ScriptedSession(folder, 0.2),
    )
    task = asyncio.create_task(system.run(decided=10**6))
    try:
        while not (folder / "run.sqlite").is_file() or not (await system.buffer.learning.status())[until]:
            await asyncio.sleep(0.02)
        yield system
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def answer(
    id: str, question: str = "What is 2 and 3?", texts: tuple[str, ...] = ("The answer is 5.",), **more: Any
) -> Any:
    about = {"start": {"version": 0}, "end": {"version": 0}, **more}
    return {"id": id, "messages": [{"role": "user", "content": question}], "texts": list(texts), **about}


def votes(folder: Path, question: str = "What is 2 and 3?") -> list[Vote]:
    return [v for v in RunReader(folder).children("votes", Vote, as_prompt(question).id) if v.by == "person"]


async def told(system: LocalSystem, said: Any, key: str = "", admin: bool = True) -> list[dict[str, str]]:
    (results,) = await system.feedback.feedback([(said, key, admin)])
    if isinstance(results, RatchetError):
        raise results
    return results


# --- the body ---


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"response_id": "r"}, "expected exactly one of binary, better_than, correction, comment, metric, found none"),
        ({"response_id": "r", "binary": True, "comment": "x"}, "found binary, comment"),
        ({"binary": True}, "response_id: Field required"),
        ({"response_id": "r", "binary": 1}, r"binary: Input should be a valid boolean \(got 1\)"),
        ({"response_id": "r", "binary": True, "choice": -1}, r"choice: .* greater than or equal to 0 \(got -1\)"),
        ({"response_id": "r", "binary": True, "choice": True}, r"choice: .* valid integer \(got True\)"),
        ({"response_id": "r", "better_than": ["s", 1]}, r"better_than: .* dictionary .*\(got \['s', 1\]\)"),
        ({"response_id": "r", "binary": True, "weight": 9}, r"weight: .* not permitted \(got 9\)"),
        ({"response_id": "r", "binary": True, "key": "shop"}, "key: .* not permitted"),
        ({"response_id": "r", "binary": True, "user": "a/b"}, r"user: .* pattern '\^\[\^/\]\*\$' \(got 'a/b'\)"),
        ({"response_id": "r", "metric": {"name": "x", "value": float("nan")}}, "metric.value: .* finite number"),
        ({"response_id": "r", "metric": {"name": "x", "value": 10**400}}, "metric.value: .* valid number"),
        ({"response_id": "r", "correction": " "}, r"correction: .*\(got ' '\)"),
        ({"response_id": "r", "comment": "half \ud800"}, "comment: .* unicode string"),
        ({"response_id": "r", "binary": True, "user": "\ud800"}, "user: .* unicode string"),
        ([], "at least 1 item after validation, not 0"),
        ([{"response_id": "r", "binary": True}] * 257, "at most 256 items after validation, not 257"),
        ([{"response_id": "r", "binary": True, "id": "x"}] * 2, "the same id"),
        ([{"response_id": "r", "binary": True}, 5], r"^\[1\]: .* dictionary .*\(got 5\)"),
        (5, r"^the body: .* dictionary .*\(got 5\)"),
    ],
)
def test_what_is_no_feedback_is_refused_by_name(body: Any, complaint: str) -> None:
    with pytest.raises(Refusal, match=complaint) as refused:
        parse(body)
    assert refused.value.status == 400


@given(st.dictionaries(st.sampled_from(sorted(FeedbackBody.model_fields)) | st.text(), JSON) | JSON)
def test_any_json_is_feedback_or_refused(body: Any) -> None:
    try:
        said = parse(body)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert all(len(each.keys() & set(WAYS)) == 1 for each in said)


# --- hearing answers ---


def test_the_texts_of_an_answer_are_heard_whole_and_streamed_however_it_is_cut() -> None:
    whole = Transcript()
    whole.feed(b'{"id": "chatcmpl-v1-a", "choices": [{"index": 0, "message": {"content": "5"}},', False, last=False)
    whole.feed(b'{"index": 1, "message": {"content": "6"}}]}', False, last=True)
    assert (whole.id, whole.texts) == ("chatcmpl-v1-a", {0: "5", 1: "6"})
    stream = b"".join(
        b'data: {"id": "chatcmpl-v1-b", "choices": [{"index": %d, "delta": {"content": "%s"}}]}\n\n' % (i % 2, part)
        for i, part in enumerate([b"a", b"x", b"b", b"y"])
    )
    for size in (1, 7, 1000):
        heard = Transcript()
        for start in range(0, len(stream), size):
            heard.feed(stream[start : start + size], True, last=False)
        heard.feed(b"data: [DONE]\n\n", True, last=True)
        assert (heard.id, heard.texts) == ("chatcmpl-v1-b", {0: "ab", 1: "xy"})
    refused = Transcript()
    refused.feed(b'{"error": {"message": "no"}}', False, last=True)
    assert refused.texts == {}


def heard(choice: dict[str, Any], streaming: bool) -> Transcript:
    transcript = Transcript()
    events = [{"id": "r", "choices": [{"index": 0, "message": {"content": "The answer is 5."}, **choice}]}]
    if streaming:
        events = [
            {"id": "r", "choices": [{"index": 0, "delta": {"content": "The answer is 5."}, "finish_reason": None}]},
            {"id": "r", "choices": [{"index": 0, "delta": {}, **choice}]},
        ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) if streaming else json.dumps(events[0])
    transcript.feed(body.encode(), streaming, last=True)
    return transcript


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("choice", "request_", "fragments"),
    [
        ({"finish_reason": "stop"}, {}, []),
        ({"finish_reason": "stop", "stop_reason": None}, {"stop": ["x"], "response_format": {"type": "text"}}, []),
        ({"finish_reason": "stop", "stop_reason": 2}, {}, []),
        ({"finish_reason": "stop", "stop_reason": 2}, {"stop_token_ids": [2]}, [0]),
        ({"finish_reason": "stop", "stop_reason": "."}, {"stop": "."}, [0]),
        ({"finish_reason": "length"}, {}, [0]),
        ({"finish_reason": "stop"}, {"response_format": {"type": "json_object"}}, [0]),
        ({"finish_reason": "stop"}, {"structured_outputs": {"regex": "5"}}, [0]),
        ({"finish_reason": "stop"}, {"logit_bias": {"7": 100}}, [0]),
        ({"finish_reason": "stop"}, {"allowed_token_ids": [7]}, [0]),
        ({"finish_reason": "stop"}, {"logit_bias": {}, "tools": [], "echo": False}, []),
    ],
)
def test_an_answer_that_was_cut_off_or_forced_is_a_fragment(
    choice: dict[str, Any], request_: dict[str, Any], fragments: list[int], streaming: bool
) -> None:
    assert heard(choice, streaming).fragments(request_) == fragments


async def test_a_vote_on_a_fragment_is_kept_and_not_counted(tmp_path: Path) -> None:
    texts = ("The answer is 5.", "The answer is 6.")
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r", texts=texts, fragments=[1])])
        liked = [{"response_id": "r", "choice": 1, "binary": value, "id": f"f{value}"} for value in (True, False)]
        better = {"response_id": "r", "choice": 1, "better_than": ("r", 0), "id": "b"}
        assert [said["result"] for said in await told(system, [*liked, better])] == ["kept"] * 3
        assert votes(tmp_path) == []
        whole, corrected = (
            {"response_id": "r", "binary": True},
            {"response_id": "r", "choice": 1, "correction": "It is 7"},
        )
        assert all(said["result"] != "kept" for said in await told(system, [whole, corrected]))
        assert {vote.answer or vote.correction for vote in votes(tmp_path)} == {"5", "It is 7"}


async def test_the_loser_of_a_comparison_reaches_the_store_and_the_selector(tmp_path: Path) -> None:
    texts = ("2+3=5. The answer is 5.", "The answer is 6.")
    async with running(tmp_path, "method.recipe=online_dpo", "method.options.oracle=people") as system:
        await system.feedback.answered([answer("r", texts=texts, start={"version": 2})])
        said = [
            {"response_id": "r", "better_than": {"response_id": "r", "choice": 1}, "user": f"user {i}"}
            for i in range(3)
        ]
        await told(system, parse(said))
        async with asyncio.timeout(20):
            while not (found := [e for o in RunReader(tmp_path).outcomes() for e in o.examples]):
                await asyncio.sleep(0.05)
    stored = [[(side.text, side.by.version) for side in vote.pair or ()] for vote in votes(tmp_path)]
    assert stored == [[(text, 2) for text in texts]] * 3
    (example,) = found
    rendered = [await policy().render(as_prompt("What is 2 and 3?"), text) for text in texts]
    assert [row.token_ids for row in example.rows] == [c.context_ids + c.completion_ids for c in rendered]


async def test_only_whole_different_texts_of_one_prompt_are_a_comparison(tmp_path: Path) -> None:
    texts = ("The answer is 5.", "The answer is 6.", "The answer is 5.", "x" * (2**16 + 1))
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r", texts=texts, fragments=[1]), answer("s", "What else?")])
        worse = [("r", 1), ("r", 2), ("r", 3), ("s", 0)]
        await told(system, [{"response_id": "r", "better_than": each, "id": str(each)} for each in worse])
        cast = votes(tmp_path)
        assert len(cast) == 4 and all(vote.answer == "5" and vote.pair is None for vote in cast)


async def test_answers_wait_for_a_desk_that_is_away() -> None:
    taken: list[str] = []
    away = [ArtifactError("away")]

    async def send(batch: Any) -> None:
        if away:
            raise away.pop()
        taken.extend(each["id"] for each in batch)

    recorder = Recorder(send)
    task = asyncio.create_task(recorder.run())
    for id in "abc":
        recorder.add({"id": id})
    async with asyncio.timeout(5):
        while len(taken) < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    assert taken == ["a", "b", "c"]


# --- the desk ---


async def test_feedback_becomes_a_vote_in_the_ballot_of_its_prompt(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        texts = ("The answer is 5.", "The answer is 6.")
        await system.feedback.answered([answer("r1", texts=texts), answer("r2", texts=("The answer is 7.",))])
        said = parse(
            [
                {"id": "up", "response_id": "r1", "binary": True, "user": "ann"},
                {"id": "down", "response_id": "r1", "choice": 1, "binary": False, "user": "bob"},
                {"id": "pair", "response_id": "r1", "better_than": {"response_id": "r2"}, "user": "eve"},
                {"id": "text", "response_id": "r1", "correction": "2+3=5. The answer is 5.", "user": "joe"},
                {"id": "say", "response_id": "r1", "comment": "hm"},
                {"id": "rate", "response_id": "r1", "metric": {"name": "kind", "value": 0.5}},
            ]
        )
        results = await told(system, said)
        assert [r["id"] for r in results] == ["up", "down", "pair", "text", "say", "rate"]
        assert {r["result"] for r in results[:4]} <= {"waiting", "counted"}
        assert [r["result"] for r in results[4:]] == ["kept", "kept"]
        cast = {v.id: (v.voter, v.answer, v.weight, v.correction, v.response_id) for v in votes(tmp_path)}
        assert cast == {
            "up": ("ann", "5", 1.0, None, "r1"),
            "down": ("bob", "6", -1.0, None, "r1"),
            "pair": ("eve", "5", 1.0, None, "r1"),
            "text": ("joe", None, 1.0, "2+3=5. The answer is 5.", "r1"),
        }
        pairs = {v.id: [side.text for side in v.pair] for v in votes(tmp_path) if v.pair is not None}
        assert pairs == {"pair": ["The answer is 5.", "The answer is 7."]}
        again = await told(system, said)
        assert [r["result"] for r in again] == ["duplicate"] * 4 + ["kept"] * 2
        assert len(votes(tmp_path)) == 4
        page = await system.feedback.page("", 0, 4)
        rest = await system.feedback.page("", page["next"], 4)
        assert [each["id"] for each in (*page["data"], *rest["data"])] == ["up", "down", "pair", "text", "say", "rate"]
        assert rest["next"] is None


async def test_what_was_voted_on_and_never_explored_is_explored_next_with_its_votes(tmp_path: Path) -> None:
    question = "What is 40 and 2?"
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1", question, ("The answer is 42.",))])
        (result,) = await told(system, parse({"response_id": "r1", "binary": True, "user": "ann"}))
        assert result["result"] == "waiting"
        async with asyncio.timeout(20):
            while not RunReader(tmp_path).ids("outcomes", as_prompt(question).id):
                await asyncio.sleep(0.05)
        reader = RunReader(tmp_path)
        (place,) = reader.ids("outcomes", as_prompt(question).id)
        outcome = reader.outcome(int(place))
        assert outcome is not None and outcome.revision == 1
        assert outcome.scored[0].group.prompt.origin == "asked"
        assert not reader.unexplored_requests() and (await system.buffer.learning.status())["asked"] == 0


async def test_what_was_asked_is_not_lost_by_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, "learning.max_lag=0") as system:
        await system.buffer.learning.pause("by hand")
        prompt = as_prompt("What is 1 and 1?", origin="asked")
        assert await system.buffer.people.ask([prompt]) == 1
        assert await system.buffer.people.ask([prompt]) == 0, "asked once"
    async with running(tmp_path, until="paused") as system:
        assert (await system.buffer.learning.status())["asked"] == 1
        await system.buffer.learning.resume()
        async with asyncio.timeout(20):
            while not RunReader(tmp_path).ids("outcomes", prompt.id):
                await asyncio.sleep(0.05)


async def test_only_the_key_that_got_an_answer_may_vote_on_it_and_ids_of_keys_do_not_meet(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1", key="shop"), answer("r2", key="bank")])
        vote = parse({"id": "1", "response_id": "r1", "binary": True, "user": "ann"})
        with pytest.raises(Missing, match="this key has no response 'r1'"):
            await told(system, vote, "bank", False)
        assert votes(tmp_path) == []
        await told(system, vote, "shop", False)
        await told(system, parse({"id": "1", "response_id": "r2", "binary": True}), "bank", False)
        await told(system, vote, "root")
        assert [v.voter for v in votes(tmp_path)] == ["shop/ann", "bank", "root/ann"]
        assert [d["id"] for d in (await system.feedback.page("shop", 0, 10))["data"]] == ["1"]


async def test_an_unknown_response_or_choice_refuses_the_whole_array(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1")])
        good = {"response_id": "r1", "binary": True}
        with pytest.raises(Missing, match="no response 'nobody'"):
            await told(system, parse([good, {"response_id": "nobody", "binary": True}]))
        with pytest.raises(ArtifactError, match="choice=3 of r1, which has 1"):
            await told(system, parse([good, {**good, "choice": 3}]))
        assert votes(tmp_path) == [] and (await system.feedback.page("", 0, 10))["data"] == []


async def test_live_traffic_is_explored_only_where_asked_for_and_not_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r0", "Who learns from me?")])
        assert (await system.buffer.learning.status())["asked"] == 0 and not RunReader(tmp_path).unexplored_requests()
    other = tmp_path / "live"
    other.mkdir()
    async with running(other, "prompts.live.ratio=1") as system:
        await system.feedback.answered([answer("r1", "Learn this."), answer("r2", "Not this.", learn=False)])
        kept = {id for id in RunReader(other).ids("asked")}
        assert kept == {as_prompt("Learn this.").id}
        assert RunReader(other).get("responses", Response, "r2") is not None


async def test_requests_that_come_together_are_refused_each_for_itself(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1")])
        good, bad = ([{"id": i, "response_id": r, "binary": True}] for i, r in (("1", "r1"), ("2", "nobody")))
        gathered = Batcher(system.feedback.feedback)
        calls = [gathered((said, "", True)) for said in (good, bad, good)]
        first, refused, again = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(refused, Missing)
        assert [r["id"] for r in first] == ["1"] and again[0]["result"] == "duplicate"  # type: ignore[index]
        assert len(votes(tmp_path)) == 1


SAID: dict[str, dict[str, Any]] = {"up": {"binary": True}, "say": {"comment": "hm"}}


class Heard(LocalCall):
    """Calls of a part in this process. Refuses as often as told, before anything is done."""

    def __init__(self, part: object) -> None:
        super().__init__(part)
        self.calls: list[str] = []
        self.refusals = 0

    async def __call__(self, method: str, *arguments: Any, **settings: Any) -> Any:
        self.calls.append(method)
        if self.refusals:
            self.refusals -= 1
            raise Overdue(f"{method} did not answer")
        return await super().__call__(method, *arguments, **settings)


@asynccontextmanager
async def a_desk(folder: Path, clock: Clock) -> AsyncIterator[tuple[FeedbackDesk, Heard, Heard]]:
    """With the buffer and the store that it asks, and nobody who explores."""
    config = configuration.load(None)
    keeper = Store(str(folder))
    await keeper.start()
    task = asyncio.create_task(keeper.run())
    store = Heard(keeper)
    buffer = Buffer(str(folder), proxy(StorePort, store), config.learning, None, Metrics(), config.method.votes, clock)
    await buffer.start()
    watched = Heard(buffer.people)
    try:
        yield (
            FeedbackDesk(str(folder), proxy(StorePort, store), proxy(BallotPort, watched), config, Metrics(), clock),
            watched,
            store,
        )
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await buffer.stop()
        await keeper.stop()


async def test_feedback_and_the_vote_that_it_makes_are_one_write_and_both_or_neither_is_kept(tmp_path: Path) -> None:
    async with a_desk(tmp_path, ManualClock(1.0)) as (desk, buffer, store):
        await desk.answered([answer("r1")])
        store.calls.clear()
        requests = [(parse({"id": id, "response_id": "r1", "user": id, **said}), "", True) for id, said in SAID.items()]
        store.refusals = 1
        with pytest.raises(Overdue):
            await desk.feedback(requests)
        reader = RunReader(tmp_path)
        assert reader.count("feedback") == reader.count("votes") == 0
        results = await desk.feedback(requests)
        assert [each[0]["result"] for each in results if not isinstance(each, Exception)] == ["waiting", "kept"]
        assert store.calls[:2] == ["append"] * 2 and buffer.calls[:2] == ["vote"] * 2, (
            "what was said goes with its votes"
        )
        assert set(reader.ids("feedback")) == {"up", "say"} and set(reader.ids("votes")) == {"up"}
        store.calls.clear()
        again = await desk.feedback(requests)
        assert [each[0]["result"] for each in again if not isinstance(each, Exception)] == ["duplicate", "kept"]
        assert (reader.count("feedback"), reader.count("votes"), store.calls) == (2, 1, ["append"])


async def test_a_prompt_is_asked_for_once_a_minute_however_many_vote_on_it(tmp_path: Path) -> None:
    clock = ManualClock(1.0)
    async with a_desk(tmp_path, clock) as (desk, buffer, _):
        await desk.answered([answer("r1"), answer("r2", "What is 1 and 1?")])

        async def vote(id: str, response: str = "r1") -> None:
            (results,) = await desk.feedback([(parse({"id": id, "response_id": response, "binary": True}), "", True)])
            assert not isinstance(results, Exception) and results[0]["result"] == "waiting"

        await vote("a")
        await vote("b")
        await vote("c", "r2")
        assert buffer.calls == ["vote", "ask", "vote", "vote", "ask"]
        clock.advance(ASK_AGAIN_S)
        await vote("d")
        assert buffer.calls[5:] == ["vote", "ask"], "it may have failed, or found no room"


async def test_what_is_said_of_an_answer_that_is_on_its_way_holds_up_nobody_else(tmp_path: Path) -> None:
    async with a_desk(tmp_path, ManualClock(1.0)) as (desk, _, _):
        await desk.answered([answer("r1")])
        waiting = asyncio.Event()

        async def ask(said: Sequence[Submission], wait_s: float) -> Sequence[Results | Exception]:
            if wait_s:
                waiting.set()
            return await desk.feedback(said, wait_s)

        to_the_desk = FeedbackClient(ask)
        early = asyncio.create_task(to_the_desk((parse({"id": "e", "response_id": "r2", "binary": True}), "", True)))
        await waiting.wait()
        (result,) = await to_the_desk((parse({"id": "o", "response_id": "r1", "binary": True}), "", True))
        assert result["id"] == "o" and not early.done()
        await desk.answered([answer("r2", "What is 1 and 1?")])
        assert (await early)[0]["result"] == "waiting"
        with pytest.raises(ArtifactError, match="choice=7 of r1"):
            await to_the_desk((parse({"response_id": "r1", "choice": 7, "binary": True}), "", True))
        with pytest.raises(Missing, match="this key has no response 'r1'"):
            await to_the_desk((parse({"response_id": "r1", "binary": True}), "bank", False))


async def test_an_answer_is_traced_to_the_version_that_learned_from_it_and_back(tmp_path: Path) -> None:
    question = "What is 40 and 2?"
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1", question, ("The answer is 42.",), key="shop")])
        vote = parse({"id": "1", "response_id": "r1", "binary": True, "user": "ann"})
        await told(system, vote, "shop", False)
        async with asyncio.timeout(20):
            while True:
                found = trace(RunReader(tmp_path), "r1")
                if found["explored"] and found["explored"][0]["versions"]:
                    break
                await asyncio.sleep(0.05)
    (explored,) = found["explored"]
    assert [v["voter"] for v in found["votes"]] == ["shop/ann"] and explored["votes_of_people"] == 1
    version = explored["versions"][0]["version"]
    assert voters(RunReader(tmp_path), int(version[1:])) == {"shop/ann": 1}
    with pytest.raises(Missing, match="nothing in this run has the id 'r9'; expected the id of an answer"):
        trace(RunReader(tmp_path), "r9")
    with pytest.raises(VersionError, match=r"v99 was never published \(known: v1"):
        voters(RunReader(tmp_path), 99)


def without_names(text: str) -> str:
    return text.replace("Ann", "NAME")


async def test_texts_are_redacted_before_anything_of_them_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path, "prompts.live.ratio=1", f"prompts.live.redact={__name__}:without_names") as system:
        await system.feedback.answered([answer("r1", "Ann has 2.", ("Ann: 2. The answer is 2.",))])
        kept = RunReader(tmp_path).get("responses", Response, "r1")
        assert kept is not None and kept.prompt is not None
        assert (kept.prompt.messages[0].content, kept.texts) == ("NAME has 2.", ("NAME: 2. The answer is 2.",))
        assert RunReader(tmp_path).ids("asked") == [kept.prompt.id]


@pytest.mark.parametrize("name", ["nowhere:f", "json:nothing", "", "json"])
def test_a_redactor_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.live\.redact=.* expected module:function"):
        redactor(name)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
async def test_data_is_exported_in_the_formats_of_trl(tmp_path: Path, suffix: str) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1"), answer("r2", texts=("The answer is 7.",))])
        said = [
            {"response_id": "r1", "binary": True},
            {"response_id": "r2", "correction": "2+3=5. The answer is 5."},
            {"response_id": "r1", "better_than": {"response_id": "r2"}},
            {"response_id": "r1", "comment": "well"},
        ]
        await told(system, parse(said))
        async with asyncio.timeout(20):
            while not RunReader(tmp_path).count("examples"):
                await asyncio.sleep(0.05)
    files = {kind: tmp_path / f"{kind}.{suffix}" for kind in ("sft", "kto", "dpo")}
    written = {kind: export(RunReader(tmp_path), kind, file) for kind, file in files.items()}
    rows = {kind: read_rows(file) for kind, file in files.items()}
    asked = [{"role": "user", "content": "What is 2 and 3?"}]
    assert {kind: len(found) for kind, found in rows.items()} == written and written["sft"] > 0
    assert rows["kto"] == [{"prompt": asked, "completion": spoken("The answer is 5."), "label": True}]
    assert rows["dpo"] == [
        {"prompt": asked, "chosen": spoken("2+3=5. The answer is 5."), "rejected": spoken("The answer is 7.")},
        {"prompt": asked, "chosen": spoken("The answer is 5."), "rejected": spoken("The answer is 7.")},
    ]
    assert all(row.keys() == {"prompt", "completion"} for row in rows["sft"])
    with pytest.raises(ConfigError, match="unknown kind of data 'ppo'; expected one of sft, kto, dpo"):
        export(RunReader(tmp_path), "ppo", tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match=r"ends with \.csv; expected \.jsonl or \.parquet"):
        export(RunReader(tmp_path), "sft", tmp_path / "x.csv")


def spoken(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def read_rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_what_came_from_a_voter_is_forgotten_and_its_versions_are_named(tmp_path: Path) -> None:
    question = "What is 40 and 2?"
    async with running(tmp_path, "learning.replay_windows=4") as system:
        texts = ("The answer is 42.",)
        await system.feedback.answered(
            [answer("r1", question, texts, key="shop", user="ann"), answer("r2", question, texts)]
        )
        up = {"response_id": "r1", "binary": True}
        await told(system, parse([{**up, "user": "ann", "id": "1"}, {**up, "user": "bob", "id": "2"}]), "shop", False)
        await told(system, parse({"response_id": "r2", "binary": True, "user": "eve", "id": "3"}))
        async with asyncio.timeout(20):
            while not any(e["versions"] for e in trace(RunReader(tmp_path), "r1")["explored"]):
                await asyncio.sleep(0.05)
        (explored,) = trace(RunReader(tmp_path), "r1")["explored"]
        first = int(explored["versions"][0]["version"][1:])
        await system.feedback.forget("shop")
        gone = await system.buffer.people.forget("shop")
        with pytest.raises(Missing):
            await told(system, parse(up), "shop", False)
        assert gone["votes"] == 2 and first in gone["versions"]
        assert [vote.voter for vote in votes(tmp_path, question)] == ["eve"]
        reader = RunReader(tmp_path)
        assert reader.get("responses", Response, "r1") is None and reader.get("responses", Response, "r2") is not None
        assert (await system.feedback.page("shop", 0, 10))["data"] == []
        assert {first.voter for first in reader.read_all(FirstVote).values()} == {"eve"}
        async with asyncio.timeout(20):
            while (outcome := RunReader(tmp_path).outcome(explored["place"])) is None or outcome.revision != 1:
                await asyncio.sleep(0.05)
        assert (await system.buffer.people.forget("shop"))["votes"] == 0


async def test_an_answer_that_cannot_be_written_down_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        await system.feedback.answered([answer("r1", texts=("half \ud800",)), answer("r2", user=5), answer("r3")])
        assert RunReader(tmp_path).ids("responses") == ["r3"]
