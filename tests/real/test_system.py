"""The whole system as a user starts it: Ray, vLLM, HTTP, the gate and two versions."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench._live import rests
from core.config import GateConfig
from core.messages import Event, Outcome, Response, Vote
from core.store.writer import RunReader
from serve.replica.haproxy import free_ports
from tests.real.conftest import ROOT, Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
Start = Callable[..., Run]
QUESTION = "Tom has 5 apples. He buys 3 apples. How many apples does Tom have now?"
LONGEST_WAIT_S = 5.0
"""Limit on a stage's idle time while its input is ready, under load by users and other stages. Most are under 1 s."""
SMALL = ("learning.groups_per_window=96", "report.per_version=120", "report.final=240", "gate.max_probes=400")
LIVE = ("prompts.live.ratio=1", "prompts.live.redact=tests.real.redaction:without_phone_numbers")


def ratchet(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "actors.cli", *arguments, "--dir", str(run.dir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def one(run: Run, *arguments: str) -> str:
    """Output of `ratchet ARGUMENTS` for this run."""
    done = ratchet(run, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def accuracy(run: Run, version: int) -> float:
    told = re.search(rf"v{version}: ([\d.]+)% .* on 240 questions", one(run, "eval", f"v{version}"))
    assert told is not None
    return float(told[1]) / 100


def spans_of(events: list[Event], opening: str, closing: str) -> list[tuple[float, float]]:
    """For each version, the times of these two events."""
    began = {e.detail["version"]: e.at for e in events if e.kind == opening}
    return [(began[e.detail["version"]], e.at) for e in events if e.kind == closing and e.detail["version"] in began]


def filled(reader: RunReader) -> dict[int, float]:
    """Window -> time of the last vote on one of its prompts."""
    prompts = {outcome.place: outcome.prompt_id for outcome in reader.outcomes()}
    cast = {vote.prompt_id: vote.cast_at for vote in reader.all("votes", Vote)}
    return {number: max(cast.get(prompts[p], 0.0) for p in places) for number, places in reader.windows().items()}


def waits(reader: RunReader) -> dict[str, list[float]]:
    """Stage -> seconds that it was idle although its input was ready, from the run's events. A stage can start when its
    input is ready and its previous work is done, whichever is later."""
    events, full, drawn = reader.events(), filled(reader), 0.0
    at = {(e.kind, e.detail["version"]): e.at for e in events if "version" in e.detail}
    free = {"train": 0.0, "weigh": 0.0}
    found: dict[str, list[float]] = {"draw": [], "train": [], "prove": [], "weigh": []}
    for event in events:
        version = event.detail.get("version")
        if event.kind == "drawn":
            found["draw"].append(event.at - max(full[event.detail["window"]], free["train"]))
            drawn = event.at
        elif event.kind == "training":
            found["train"].append(event.at - drawn)
        elif event.kind == "published":
            free["train"] = event.at
        elif event.kind == "proven":
            found["prove"].append(event.at - at["published", version])
        elif event.kind == "weighing" and ("proven", version) in at:
            found["weigh"].append(event.at - max(at["proven", version], free["weigh"]))
        elif event.kind == "weighed":
            free["weigh"] = event.at
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run with adapters, shared by the tests, because a start takes half a minute."""
    run = Run(tmp_path_factory.mktemp("lora"), *SMALL, *LIVE)
    try:
        yield run
    finally:
        run.kill()


def test_of_what_people_ask_only_what_may_be_learned_is_explored_and_redacted_before(run: Run) -> None:
    probe = pq.read_table(ROOT / (GateConfig().anchors or "")).to_pylist()[0]["prompt"]
    refused = "Rosa has 21 tickets and buys 4 more. How many tickets does Rosa have?"
    private = "Omar, phone 555-0199, has 8 eggs and finds 9 more. How many eggs does Omar have?"
    nearly = f"Please tell me: {probe}"
    with httpx.Client(base_url=run.url, trust_env=False, timeout=60) as http:
        answers = {}
        for question, headers in ((refused, {"x-ratchet-learn": "no"}), (probe, {}), (nearly, {}), (private, {})):
            body = {"model": "policy", "messages": [{"role": "user", "content": question}], "max_tokens": 60}
            reply = http.post("/v1/chat/completions", json=body, headers=headers).raise_for_status().json()
            assert reply["choices"][0]["message"]["content"]
            answers[question] = reply["id"]
    asked = {question: kept(run, id) for question, id in answers.items()}
    assert [asked[question].prompt.messages[0].content for question in (refused, probe, nearly)] == [
        refused,
        probe,
        nearly,
    ]
    assert asked[private].prompt.messages[0].content == private.replace("555-0199", "PHONE")

    explored = {question: explored_of(run, asked[question].prompt.id) for question in (probe, nearly, private)}
    (scored,) = explored[private].scored
    assert scored.group.prompt.messages == asked[private].prompt.messages and scored.group.prompt.origin == "live"
    for question in (probe, nearly):
        assert "a probe asks the same" in (explored[question].failure or "") and not explored[question].scored
    with closing(RunReader(run.dir)) as reader:
        assert not asked[refused].learn and not reader.ids("outcomes", asked[refused].prompt.id)
        assert "555-0199" not in "".join(outcome.model_dump_json() for outcome in reader.outcomes())


def kept(run: Run, id: str) -> Response:
    """The stored response. Waits until it is stored."""
    return soon(f"answer {id}", run, lambda reader: reader.get("responses", Response, id))


def explored_of(run: Run, prompt_id: str) -> Outcome:
    return soon(
        f"outcome of {prompt_id}",
        run,
        lambda reader: next((o for o in reader.outcomes() if o.prompt_id == prompt_id), None),
    )


def soon(what: str, run: Run, look: Callable[[RunReader], Any]) -> Any:
    """Poll `look` until it returns a value."""
    deadline = time.monotonic() + 120
    with closing(RunReader(run.dir)) as reader:
        while (found := look(reader)) is None:
            assert time.monotonic() < deadline, f"no {what} within 120 s:\n{run.log.read_text()[-2000:]}"
            time.sleep(0.5)
    return found


def test_lora_versions_are_learned_served_and_better_than_the_base(run: Run) -> None:
    client = openai.OpenAI(base_url=f"{run.url}/v1", api_key="none", max_retries=0)

    # processes of Ray that the run does not need are not started
    commands = [" ".join(process.cmdline()) for process in run.those("")]
    assert any("gcs_server" in command for command in commands)
    assert not [c for c in commands if any(f"/{name}.py" in c for name in ("monitor", "log_monitor", "dashboard"))]
    agent = (run.dir / "logs/ray/dashboard_agent.log").read_text()
    assert agent.count("Get dashboard http address failed") < 10, (
        "Ray's agent logs this every second if it needs the dashboard"
    )

    # the official client, streamed and not
    whole = client.chat.completions.with_raw_response.create(
        model="policy", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=100
    )
    assert whole.headers["x-policy-version"].isdecimal()
    answer = whole.parse().choices[0].message.content
    assert answer
    assert "answer is" in answer
    pieces = list(
        client.chat.completions.create(
            model="policy",
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0.7,
            max_tokens=100,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len([p for p in pieces if p.choices and p.choices[0].delta.content]) > 3
    assert pieces[-1].usage is not None
    assert {model.id for model in client.models.list()} >= {"policy", "policy@v0"}

    # unlisted routes and malformed requests get OpenAI's error shape
    http = httpx.Client(base_url=run.url, trust_env=False, timeout=60)
    for path in ("/scale_elastic_ep", "/load", "/invocations", "/v1/load_lora_adapter"):
        reply = http.post(path, json={})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, 404)
    with pytest.raises(openai.NotFoundError, match="available: policy"):
        client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="policy", messages=[{"role": "user", "content": "9 " * 4000}])
    assert http.post("/v1/chat/completions", content=b"{nonsense").status_code == 400

    # users get answers while two versions are learned
    asked = 0
    deadline = time.monotonic() + 600
    while run.status()["versions"]["decided"] < 2:
        client.chat.completions.create(
            model="policy", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=100
        )
        asked += 1
        assert time.monotonic() < deadline, run.log.read_text()[-3000:]
        time.sleep(1)
    assert asked > 3

    # collecting, training and weighing ran at the same time
    reader = RunReader(run.dir)
    events = reader.events()
    cast = [vote.cast_at for vote in reader.all("votes", Vote)]
    for begin, end in (("training", "published"), ("weighing", "decided")):
        spans = spans_of(events, begin, end)
        assert any(began < at < ended for at in cast for began, ended in spans), f"no vote was cast while {begin}"

    # no stage was idle for long while its input was ready
    for stage, seconds in waits(reader).items():
        assert seconds, stage
        assert max(seconds) < LONGEST_WAIT_S, (stage, seconds)

    page = http.get("/metrics").text
    assert "ratchet_tokens_total" in page
    assert "vllm" in page

    assert "paused" in one(run, "pause")  # otherwise a version may be unloaded while `eval` asks it
    while not rests(status := run.status()) or status["versions"]["slots"]["candidate"] is not None:
        assert time.monotonic() < deadline, run.log.read_text()[-3000:]
        time.sleep(0.5)
    decided = [e.detail for e in RunReader(run.dir).events("decided")]
    promoted = [d["version"] for d in decided if d["verdict"] == "promote"]
    assert promoted, decided
    newest = max(promoted)
    assert f"v{newest}" in one(run, "versions")
    assert accuracy(run, newest) > accuracy(run, 0) + 0.02
    assert "policy version" in one(run, "ask", QUESTION)
    assert "serving on" in one(run, "status")
    assert run.status()["buffer"]["paused"]
    assert "has resumed" in one(run, "resume")

    # Ctrl-C leaves no process behind, and a stopped run can still export
    family = run.family()
    assert run.interrupt() == 130
    gone(family)
    folder = Path(one(run, "export", f"v{newest}", "--merged").strip().splitlines()[-1])
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    assert "answer is" in tokenizer.decode(model.generate(ids, max_new_tokens=60, do_sample=False)[0])
    adapter = Path(one(run, "export", f"v{newest}", "--to", str(run.dir / "adapter")).strip().splitlines()[-1])
    assert load_file(adapter / "adapter_model.safetensors")

    # `ratchet gate` weighs any adapter folder, also for a stopped run
    done = ratchet(run, "gate", str(adapter))
    assert done.returncode in (0, 10, 11), done.stdout + done.stderr
    assert "probes)" in done.stdout


def test_a_run_interrupted_while_it_starts_leaves_nothing_behind(start_run: Start) -> None:
    run = start_run()
    deadline = time.monotonic() + 120
    while not any("ServeController" in " ".join(p.cmdline()) for p in run.family()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    family = run.family()
    assert run.interrupt(90) == 130
    gone(family)


def test_a_replica_that_cannot_start_says_why_and_until_then_users_are_told_to_try_again(start_run: Start) -> None:
    port = free_ports(1)[0]
    # 1 kB for each of 1,025 tokens
    too_little = ("serve.engine.max_tokens=1024", "serve.engine.kv_cache_bytes=1048576")
    run = start_run("--port", str(port), *too_little)
    family, replies = list[psutil.Process](), list[httpx.Response]()
    deadline = time.monotonic() + 180
    while run.process.poll() is None:
        assert time.monotonic() < deadline
        family = run.family() or family
        with contextlib.suppress(httpx.TransportError):  # the gateway is not open yet, or no longer
            replies.append(httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False))
        time.sleep(0.5)
    assert run.process.returncode == 1
    assert "Engine core initialization failed" in run.log.read_text()
    assert "more in the run's logs/" in run.log.read_text()
    assert "available KV cache memory" in (run.dir / "logs" / "engines.log").read_text()
    gone(family)
    told = {(reply.status_code, reply.headers.get("retry-after")) for reply in replies}
    assert (503, "1") in told <= {(503, "1"), (404, None)}  # Serve's own proxy does not know the app at first
    assert "unavailable_error" in {
        reply.json()["error"]["type"] for reply in replies if "json" in reply.headers["content-type"]
    }


def gone(family: list[psutil.Process]) -> None:
    """Asserts that all processes end within 5 s."""
    left = psutil.wait_procs(family, timeout=5)[1]
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
