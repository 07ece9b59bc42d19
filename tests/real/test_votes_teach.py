"""Votes change training: what people write instead of an answer becomes likelier, and without them it does not."""

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


def test_a_correction_becomes_likelier_and_does_not_without_people(start_run: Callable[..., Run]) -> None:
    voted = risen(start_run(*SETTINGS), vote=True)
    control = risen(start_run(*SETTINGS, folder="control"), vote=False)
    assert voted > 5, f"log-probability of the corrections rose by {voted:.2f} nats"
    assert voted > control + 5, f"it rose by {voted:.2f} nats with votes and by {control:.2f} without"


def risen(run: Run, vote: bool) -> float:
    """By how many nats a correction is likelier after two versions than to the base, on average."""
    with httpx.Client(base_url=run.url, timeout=60, trust_env=False) as http:
        for question, correction in zip(QUESTIONS, CORRECTIONS, strict=True):
            body = {"model": "policy@v0", "messages": chat(question), "max_tokens": 60}
            answer = http.post("/v1/chat/completions", json=body).raise_for_status().json()
            if vote:
                said = {"response_id": answer["id"], "correction": correction, "user": "ann"}
                http.post("/v1/feedback", json=said).raise_for_status()
        last = newest(http)
        deadline = time.monotonic() + 300
        while newest(http) < last + 2 or (vote and http.get("/status").json()["buffer"]["asked"]):
            assert time.monotonic() < deadline, "no two versions were learned"
            time.sleep(1)
        http.post("/admin/pause", json={})
        served = http.get("/status").json()["versions"]["slots"]["serve"]
        pairs = list(zip(QUESTIONS, CORRECTIONS, strict=True))
        after, before = (
            sum(logprob(http, f"policy@v{version}", *pair) for pair in pairs) / len(pairs) for version in (served, 0)
        )
    run.kill()
    return after - before


def newest(http: httpx.Client) -> int:
    """The version that users get."""
    return int(http.get("/status").json()["versions"]["slots"]["serve"])


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def logprob(http: httpx.Client, model: str, question: str, text: str) -> float:
    """Of a text as the answer to a question, nats."""
    context = http.post("/tokenize", json={"model": "policy", "messages": chat(question)}).json()["tokens"]
    spoken = {"model": "policy", "prompt": text, "add_special_tokens": False}
    tokens = http.post("/tokenize", json=spoken).json()["tokens"]
    body = {"model": model, "prompt": [*context, *tokens], "max_tokens": 1, "prompt_logprobs": 0}
    reply = http.post("/v1/completions", json=body).raise_for_status().json()
    scored = reply["choices"][0]["prompt_logprobs"][len(context) :]
    return sum(next(iter(each.values()))["logprob"] for each in scored)
