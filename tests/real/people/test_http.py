"""The HTTP API with the official client and with plain HTTP, and a vote's path to a version."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import openai
import pytest

from core.messages import Response, Vote
from core.store.writer import RunReader
from serve.http.ingress import ENGINE_FIELDS
from tests.real.conftest import ROOT as ROOT_DIR
from tests.real.conftest import Run
from tests.real.people.conftest import BANK, QUESTION, QUEUE, ROOT, SHOP

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
CHAT = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def http(run: Run) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=run.url, timeout=60, trust_env=False) as client:

        def ask(method: str, path: str, key: str = ROOT, **more: object) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

        yield ask


def test_the_threads_of_a_replica_share_what_memory_is_free(run: Run) -> None:
    begun_with = [replica.environ() for replica in run.those("ray::ServeReplica")]
    assert [environment.get("MALLOC_ARENA_MAX") for environment in begun_with] == ["2"], "malloc reads it at start only"


def client(run: Run, key: str = SHOP) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{run.url}/v1", api_key=key, max_retries=0)


def test_the_official_client_is_answered_whole_streamed_and_by_several_choices(run: Run) -> None:
    with client(run) as shop:
        whole = shop.chat.completions.with_raw_response.create(model="policy", messages=CHAT, max_tokens=60, n=2)  # type: ignore[arg-type]
        reply = whole.parse()
        assert len(reply.choices) == 2 and reply.id.startswith(f"chatcmpl-v{whole.headers['x-policy-version']}-")
        stream = shop.chat.completions.create(
            model="policy",
            messages=CHAT,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
            seed=1,
            stop=["."],
            max_tokens=60,
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) and chunks[-1].usage
        assert shop.completions.create(model="policy", prompt=f"{QUESTION}\n", max_tokens=8).choices[0].text
        assert {"policy", "policy:vote", "policy@v0"} <= {model.id for model in shop.models.list()}
        with pytest.raises(
            openai.NotFoundError, match=r"`policy@v99` does not exist; available: policy, .*policy:vote"
        ):
            shop.chat.completions.create(model="policy@v99", messages=CHAT)  # type: ignore[arg-type]
        pinned = shop.chat.completions.with_raw_response.create(
            model="policy",
            messages=CHAT,  # type: ignore[arg-type]
            max_tokens=4,
            extra_headers={"x-policy-version": "0"},
        )
        assert pinned.headers["x-policy-version"] == "0"


def test_an_answer_keeps_the_format_that_was_asked_for(run: Run) -> None:
    said = ["five apples", "twelve apples"]

    def ask(schema: dict[str, object]) -> str:
        form = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
        reply = shop.chat.completions.create(model="policy", messages=CHAT, response_format=form, max_tokens=60)  # type: ignore[call-overload]
        return reply.choices[0].message.content or ""

    with client(run) as shop:
        assert json.loads(ask({"enum": said})) in said
        with pytest.raises(openai.BadRequestError, match="Invalid type"):
            ask({"type": "nothing"})


def test_a_tool_is_called_where_the_request_says_so(run: Run) -> None:
    parameters = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    tool = {"type": "function", "function": {"name": "tell", "strict": True, "parameters": parameters}}
    about = {"model": "policy", "messages": CHAT, "tools": [tool], "max_tokens": 60}
    with client(run) as shop:
        named = {"type": "function", "function": {"name": "tell"}}
        message = shop.chat.completions.create(**about, tool_choice=named).choices[0].message  # type: ignore[call-overload]
        # the embedded model never saw JSON: it may fill free text with blanks until max_tokens
        begun = (message.content or "").startswith('<tool_call>\n{"name": "tell", "arguments": {')
        assert message.tool_calls or begun, message
        free = shop.chat.completions.create(**about, tool_choice="auto").choices[0].message  # type: ignore[call-overload]
        assert free.content and not free.tool_calls, "the embedded model never saw a tool and should answer in text"


def test_a_mode_answers_with_its_share_and_counts_what_it_hides(run: Run) -> None:
    with client(run) as shop:
        raw = shop.chat.completions.with_raw_response.create(model="policy:vote", messages=CHAT)  # type: ignore[arg-type]
        reply = raw.parse()
        assert 0 <= float(raw.headers["x-vote-share"]) <= 1
        assert reply.model_extra is not None and reply.model_extra["vote"]["asked"] in range(5, 9)
        shown = len((reply.choices[0].message.content or "").split())
        assert reply.usage is not None and reply.usage.completion_tokens > 4 * shown
        text = "".join(
            chunk.choices[0].delta.content or ""
            for chunk in shop.chat.completions.create(model="policy:vote", messages=CHAT, stream=True)  # type: ignore[arg-type]
            if chunk.choices
        )
        assert text
        with pytest.raises(openai.BadRequestError, match=r"no serving mode `nope`; available: .*vote"):
            shop.chat.completions.create(model="policy:nope", messages=CHAT)  # type: ignore[arg-type]


def test_without_a_key_or_as_the_wrong_one_nothing_is_told(run: Run, http: Callable[..., httpx.Response]) -> None:
    assert http("GET", "/health", key="").status_code == 200
    assert http("GET", "/", key="").status_code == 200
    for path in ("/v1/models", "/status", "/metrics", "/v1/feedback", "/events"):
        assert http("GET", path, key="").status_code == 401
        assert http("GET", path, key="rk-wrong").status_code == 401
    assert http("POST", "/v1/chat/completions", key="", json={"messages": CHAT}).status_code == 401
    for method, path in (("GET", "/status"), ("POST", "/admin/pause")):
        assert http(method, path, key=SHOP, **({"json": {}} if method == "POST" else {})).status_code == 403
    logs = "".join(file.read_text(errors="replace") for file in (run.dir / "logs").rglob("*") if file.is_file())
    metrics = http("GET", "/metrics").text
    said = logs + metrics + run.log.read_text() + (run.dir / "config.yaml").read_text()
    assert not [secret for secret in (SHOP, BANK, ROOT) if secret in said]


def test_limits_are_named(http: Callable[..., httpx.Response]) -> None:
    many = http("POST", "/v1/chat/completions", json={"messages": CHAT, "n": 99})
    assert many.status_code == 400 and many.json()["error"]["param"] == "n"
    long = http("POST", "/v1/chat/completions", content=b"x" * (2**22 + 1))
    assert long.status_code == 413


def test_more_requests_than_the_queue_holds_are_asked_to_come_again(run: Run) -> None:
    body = {"model": "policy", "messages": CHAT, "max_tokens": 200, "ignore_eos": True}

    async def ask_all() -> list[httpx.Response]:
        headers = {"authorization": f"Bearer {SHOP}"}
        limits = httpx.Limits(max_connections=3 * QUEUE)
        async with httpx.AsyncClient(timeout=120, trust_env=False, headers=headers, limits=limits) as shop:
            url = f"{run.url}/v1/chat/completions"
            return await asyncio.gather(*(shop.post(url, json=body) for _ in range(2 * QUEUE)))

    replies = asyncio.run(ask_all())
    refused = [reply for reply in replies if reply.status_code != 200]
    assert len(replies) - len(refused) >= QUEUE
    assert refused and {reply.status_code for reply in refused} == {429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert refused[0].json()["error"]["type"] == "rate_limit_error"


def test_one_key_never_finds_what_another_left_in_the_prefix_cache(http: Callable[..., httpx.Response]) -> None:
    story = [{"role": "user", "content": f"{uuid.uuid4().hex} " + QUESTION * 8}]

    def cached(key: str) -> int:
        """Cached tokens of the prompt. The request names version 0, whose weights never change."""
        body = {"model": "policy@v0", "messages": story, "max_tokens": 4}
        reply = http("POST", "/v1/chat/completions", key=key, json=body)
        assert reply.status_code == 200, reply.text
        return (reply.json()["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    assert cached(SHOP) == 0
    assert cached(BANK) == 0
    assert cached(SHOP) > 0 and cached(BANK) > 0


def test_what_steers_the_engine_never_reaches_it(http: Callable[..., httpx.Response]) -> None:
    ours = http("POST", "/v1/chat/completions", json={"messages": CHAT, "max_tokens": 4}).json()
    wrong = {name: ["what vLLM would refuse"] for name in ENGINE_FIELDS}
    reply = http("POST", "/v1/chat/completions", json={"messages": CHAT, "max_tokens": 4, **wrong})
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["prompt_tokens"] == ours["usage"]["prompt_tokens"]


def test_a_vote_is_durable_owned_and_leads_to_the_version_that_learned_from_it(
    run: Run, http: Callable[..., httpx.Response]
) -> None:
    question = "Mia has 31 shells and finds 11 more. How many shells does Mia have?"
    body = {"model": "policy", "messages": [{"role": "user", "content": question}], "max_tokens": 60}
    response = http("POST", "/v1/chat/completions", key=SHOP, json=body).json()
    good = {"id": "mine", "response_id": response["id"], "correction": "31+11=42. The answer is 42.", "user": "ann"}
    assert http("POST", "/v1/feedback", key=BANK, json=good).status_code == 404
    assert http("POST", "/v1/feedback", key=SHOP, json={**good, "response_id": "nobody"}).status_code == 404
    first = http("POST", "/v1/feedback", key=SHOP, json=good)
    assert first.status_code == 200 and first.json()["results"][0]["id"] == "mine"
    again = http("POST", "/v1/feedback", key=SHOP, json=[good])
    assert again.json() == {"results": [{"id": "mine", "result": "duplicate"}]}
    page = http("GET", "/v1/feedback", key=SHOP).json()
    assert [each["id"] for each in page["data"]] == ["mine"]
    assert http("GET", "/v1/feedback", key=BANK).json()["data"] == []
    deadline = time.monotonic() + 240
    while True:
        with closing(RunReader(run.dir)) as reader:
            answered = reader.get("responses", Response, response["id"])
            assert answered is not None and answered.prompt is not None and answered.key == "shop"
            cast = reader.children("votes", Vote, answered.prompt.id)
            (vote,) = [each for each in cast if each.by == "person"]
            explored = reader.ids("outcomes", vote.prompt_id)
        if explored:
            break
        assert time.monotonic() < deadline, "a voted prompt was never explored"
        time.sleep(1)
    assert vote.voter == "shop/ann" and vote.response_id == response["id"]


def test_the_page_of_the_run_shows_what_is_served(run: Run) -> None:
    about = {"headers": {"authorization": f"Bearer {SHOP}"}, "timeout": 30, "trust_env": False}
    with httpx.stream("GET", f"{run.url}/events", **about) as stream:  # type: ignore[arg-type]
        for line in stream.iter_lines():
            if line.startswith("data: "):
                state = json.loads(line[6:])
                break
    assert state["slots"]["serve"]["version"] >= 0 and state["replicas"]


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT_DIR / "docs" / "http.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples("bash"))))
def test_every_command_of_the_page_on_http_works_as_written(run: Run, number: int) -> None:
    said = examples("bash")[number].replace("http://127.0.0.1:8000", run.url)
    command = ["bash", "-euo", "pipefail", "-c", said]
    done = subprocess.run(command, env={**os.environ, "RATCHET_KEY": ROOT}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, f"{said}\n{done.stdout}\n{done.stderr}"


def test_the_python_of_the_page_on_http_works_as_written(run: Run) -> None:
    (said,) = examples("python")
    command = [sys.executable, "-c", said.replace("http://127.0.0.1:8000", run.url)]
    done = subprocess.run(command, env={**os.environ, "RATCHET_KEY": SHOP}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "CompletionUsage" in done.stdout, done.stderr
