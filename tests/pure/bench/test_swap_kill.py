"""What bench/swap_kill.py counts, and how it names the versions that an answer's tokens come from."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench._token_versions import FOREIGN, margin, named
from bench.swap_kill import Drill, Streamed, account, like, tokens_of

SCORES = {v: np.random.default_rng(v).normal(-2.0, 0.5, 60).clip(-6, 0) for v in range(5)}
"""Log-probabilities of 60 tokens by version. Two versions differ by about half a nat a token."""


def told(*parts: tuple[int, int]) -> list[float]:
    """The engine's log-probabilities of an answer whose tokens up to each end come from that version, with noise."""
    rows, start = list[float](), 0
    for version, end in parts:
        rows += SCORES[version][start:end].tolist()
        start = end
    return (np.array(rows) + np.random.default_rng(9).normal(0, 0.02, len(rows))).tolist()


def streamed(version: int, logprobs: list[float], wanted: int | None = None) -> Streamed:
    return Streamed(version, version if wanted is None else wanted, "whole", "", version, "r.1", [1], [7], logprobs)


def test_tokens_name_every_version_that_they_come_from_in_order() -> None:
    assert named(told((2, 60)), SCORES, 2) == [2] == named(told((2, 60)), SCORES, 1)
    assert named(told((3, 40), (4, 60)), SCORES, 3) == [3, 4]
    assert named(told((1, 20), (2, 40), (3, 60)), SCORES, 1) == [1, 2, 3]
    assert named(np.random.default_rng(1).normal(-9, 1, 60).tolist(), SCORES, 1) == [FOREIGN]


def test_versions_that_cannot_be_told_apart_have_no_margin() -> None:
    assert margin(told((2, 60)), SCORES) > 10
    assert named(told((2, 1)), {v: row[:1] for v, row in SCORES.items()}, 1) == [1], "a single token accuses nobody"
    assert margin(told((2, 60)), {**SCORES, 5: SCORES[2]}) == 0


def test_an_answer_of_another_version_than_its_header_is_counted_and_one_of_two_versions_too() -> None:
    answers = [streamed(1, told((2, 60))), streamed(1, told((3, 60))), streamed(1, told((2, 30), (3, 60)), wanted=2)]
    scores = [SCORES] * 3
    found = tokens_of(answers, scores, "lora")
    assert (found["of_their_version"], found["moved_on"], found["strangers"]) == (1, 0, 2)
    assert [each["tokens_of"] for each in found["first_strangers"]] == [[3], [2, 3]]
    whole_models = tokens_of(answers, scores, "full")
    assert (whole_models["moved_on"], whole_models["strangers"]) == (1, 1)
    alike = {0: SCORES[0], 2: SCORES[2], 3: SCORES[2]}
    assert (found["undecided"], tokens_of(answers[:1], [alike], "lora")["undecided"]) == (0, 1)


def test_the_drill_serves_four_versions_again_and_again_after_the_base() -> None:
    assert [like(number) for number in range(7)] == [0, 2, 3, 4, 1, 2, 3]


def event(*ids: int, finish: str | None = None) -> str:
    logprobs = {"token_logprobs": [-0.5] * len(ids)}
    choice = {
        "text": "",
        "token_ids": list(ids),
        "prompt_token_ids": [1],
        "logprobs": logprobs,
        "finish_reason": finish,
    }
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


@asynccontextmanager
async def client_of(text: str, version: int, replica: str, status: int, breaks: bool) -> AsyncIterator[Any]:
    async def reply(request: web.Request) -> web.StreamResponse:
        headers = {"x-policy-version": str(version), "x-policy-replica": replica}
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await response.write(text.encode())
        if breaks:
            assert request.transport is not None
            request.transport.close()
        return response

    app = web.Application()
    app.router.add_post("/v1/completions", reply)
    async with TestServer(app) as server, httpx.AsyncClient(base_url=str(server.make_url("")), trust_env=False) as it:
        yield it


@pytest.mark.parametrize(
    ("text", "version", "replica", "status", "breaks", "counted"),
    [
        (event(7) + event(8, finish="length"), 5, "b.22", 200, False, {"whole": 1}),
        (event(7), 5, "a.11", 200, True, {"cut_on_the_killed": 1}),
        (event(7), 5, "b.22", 200, True, {"truncated": 1}),
        (event(7), 5, "b.22", 200, False, {"truncated": 1}),
        ('data: {"choices": []}\n\n', 5, "b.22", 200, True, {"failed": 1}),
        ("busy", 5, "b.22", 503, False, {"failed": 1}),
        (event(8, finish="length"), 3, "b.22", 200, False, {"whole": 1, "outdated": 1}),
        (event(8, finish="length"), 6, "b.22", 200, False, {"whole": 1, "outdated": 1}),
    ],
)
async def test_every_end_of_a_stream_is_counted_apart(
    text: str, version: int, replica: str, status: int, breaks: bool, counted: dict[str, int]
) -> None:
    drill = Drill(10, 0, wanted=5, complete=4, killed={"11"})
    async with client_of(text, version, replica, status, breaks) as client:
        await drill.stream_one(client)
    found = account(drill.streams, drill.killed)
    kinds = ("whole", "failed", "truncated", "cut_on_the_killed", "outdated")
    assert {kind: found[kind] for kind in kinds if found[kind]} == counted and found["requests"] == 1
    assert status != 503 or list(found["why"]) == ["status 503: b'busy'"]


async def test_tokens_and_log_probabilities_of_a_stream_are_kept() -> None:
    drill = Drill(10, 0, wanted=5, complete=5)
    async with client_of(event(7, 9) + event(8, finish="length"), 5, "b.22", 200, False) as client:
        await drill.stream_one(client)
    (only,) = drill.streams
    assert only.ids == [7, 9, 8] and only.logprobs == [-0.5] * 3 and only.version == only.wanted == 5
