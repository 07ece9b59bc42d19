"""Votes change training: a correction by people becomes more likely with votes, and not without votes."""

import time
from collections.abc import Callable

import httpx
import pytest

from tests.real.conftest import Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
SETTINGS = (
    "report.questions=null",
    "gate.enabled=false",
    "learning.groups_per_window=48",
    "method.votes.quorum=1",
    "method.votes.correction_share=0.5",
)
NAMES = ("Ida", "Ben", "Eva", "Max", "Lea", "Tim", "Zoe", "Jan")
QUESTIONS = [f"{name} has {n + 12} coins and finds {n + 3} coins. How many coins?" for n, name in enumerate(NAMES)]
CORRECTIONS = [
    f"Well, let us see. {n + 12}+{n + 3}={2 * n + 15}. The answer is {2 * n + 15}." for n in range(len(NAMES))
]


VERSIONS = 3
"""Windows in progress when people vote were started without these votes."""


def test_a_correction_becomes_likelier_and_does_not_without_people(start_run: Callable[..., Run]) -> None:
    """Learns a few versions without votes (the control), then as many with votes."""
    run = start_run(*SETTINGS)
    with httpx.Client(base_url=run.url, timeout=60, trust_env=False) as http:
        answers = [ask(http, question) for question in QUESTIONS]
        likely = [likelihood(http, 0)]
        for said in ([], zip(answers, CORRECTIONS, strict=True)):
            for answer, correction in said:
                body = {"response_id": answer, "correction": correction, "user": "ann"}
                http.post("/v1/feedback", json=body).raise_for_status()
            learn(http)
            likely.append(likelihood(http))
    control, voted = likely[1] - likely[0], likely[2] - likely[1]
    assert voted > 5, f"log-probability of the corrections rose by {voted:.2f} nats"
    assert voted > control + 5, f"it rose by {voted:.2f} nats with votes and by {control:.2f} without"


def ask(http: httpx.Client, question: str) -> str:
    """Ask the base; returns the id of its answer."""
    body = {"model": "policy@v0", "messages": chat(question), "max_tokens": 60}
    return http.post("/v1/chat/completions", json=body).raise_for_status().json()["id"]


def learn(http: httpx.Client) -> None:
    """Wait until users get a version that is VERSIONS later, and every voted prompt was explored."""
    last = newest(http)
    deadline = time.monotonic() + 300
    while newest(http) < last + VERSIONS or http.get("/status").json()["buffer"]["asked"]:
        assert time.monotonic() < deadline, f"no {VERSIONS} versions were learned"
        time.sleep(1)


def likelihood(http: httpx.Client, version: int | None = None) -> float:
    """Mean log-probability of a correction (nats), by default of the version that users get. Learning is paused
    meanwhile."""
    http.post("/admin/pause", json={}).raise_for_status()
    model = f"policy@v{newest(http) if version is None else version}"
    pairs = list(zip(QUESTIONS, CORRECTIONS, strict=True))
    mean = sum(logprob(http, model, *pair) for pair in pairs) / len(pairs)
    http.post("/admin/resume", json={}).raise_for_status()
    return mean


def newest(http: httpx.Client) -> int:
    """The version that serves users."""
    return int(http.get("/status").json()["versions"]["slots"]["serve"])


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def logprob(http: httpx.Client, model: str, question: str, text: str) -> float:
    """Log-probability of a text as the answer to a question, nats."""
    context = http.post("/tokenize", json={"model": "policy", "messages": chat(question)}).json()["tokens"]
    spoken = {"model": "policy", "prompt": text, "add_special_tokens": False}
    tokens = http.post("/tokenize", json=spoken).json()["tokens"]
    body = {"model": model, "prompt": [*context, *tokens], "max_tokens": 1, "prompt_logprobs": 0}
    reply = http.post("/v1/completions", json=body).raise_for_status().json()
    scored = reply["choices"][0]["prompt_logprobs"][len(context) :]
    return sum(next(iter(each.values()))["logprob"] for each in scored)
