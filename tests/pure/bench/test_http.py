"""What bench/http.py and bench/priority.py conclude from timed answers; the servers themselves are in tests/real."""

import argparse
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench import http, priority
from bench._ask import Answered, ask, open_session
from bench._plain import PlainServer, flags
from core.config import load
from core.errors import Unavailable

STREAM = "".join(f"data: {event}\n\n" for event in ['{"choices": []}'] * 3 + ['{"usage": {"completion_tokens": 2}}'])


def answered(first_ms: float, gap_ms: float) -> Answered:
    return Answered(32, first_ms / 1e3, 0.1, (gap_ms / 1e3,) * 3, "0")


@asynccontextmanager
async def told(body: str, status: int = 200) -> AsyncIterator[aiohttp.ClientSession]:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"x-policy-version": "0"})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    async with TestServer(app) as server, open_session(str(server.make_url("/"))) as client:
        yield client


async def test_an_answer_is_timed_event_by_event_and_counts_only_when_it_is_whole() -> None:
    async with told(f"{STREAM}data: [DONE]\n\n") as client:
        answer = await ask(client, "policy", "1+1?", 2)
        assert (answer.tokens, answer.version, len(answer.gaps_s)) == (2, "0", 1)
        assert 0 < answer.first_s <= answer.total_s
        with pytest.raises(Unavailable, match="has 2 tokens, expected 3"):
            await ask(client, "policy", "1+1?", 3)
    async with told("no such model", 404) as client:
        with pytest.raises(Unavailable, match="404: no such model"):
            await ask(client, "policy", "1+1?", 2)


def test_engine_settings_become_flags() -> None:
    settings = {"max_num_seqs": 64, "enable_lora": True, "x": False, "kv_cache_memory_bytes": None, "names": ["a", "b"]}
    assert flags(settings) == ["--max-num-seqs", "64", "--enable-lora", "--no-x", "--names", "a", "b"]


def test_a_ratio_is_the_median_over_rounds_and_the_floor_holds_at_every_concurrency() -> None:
    plain = http.figures([answered(10, 1)] * 4, took_s=2.0, server_cpu_s=1.0)
    assert (plain["tokens_per_s"], plain["ttft_ms_p50"], plain["server_cpu_ms_per_token"]) == (64.0, 10.0, 7.8125)
    rounds = [
        {"ratchet": http.figures([answered(ms, 1)] * 4, took_s, 1.5), "plain": plain}
        for ms, took_s in ((11, 2.0), (12, 2.5), (40, 4.0))
    ]
    found = http.ratios(rounds, "ratchet", "plain")
    assert (found["throughput_ratio"], found["ttft_p50_ratio"], found["server_cpu_s_ratio"]) == (0.8, 1.2, 1.5)
    slow, met = {"default": found, "plain": found}, {**found, "throughput_ratio": 0.9}
    assert not http.within_floor({"1": slow})
    assert http.within_floor({"1": {"default": met, "plain": met}})
    assert not http.within_floor({"1": {"default": met, "plain": met}, "16": {**slow, "plain": met}})


def test_a_row_has_the_median_over_runs_and_its_range() -> None:
    def side(took_s: float) -> dict[str, float]:
        return http.figures([answered(10, 1)] * 4, took_s, 1.0)

    runs = [
        [{"ratchet": side(took_s), "default": side(1.0), "plain": side(2.0), "learning": side(8.0)}]
        for took_s in (2.0, 4.0, 5.0)
    ]
    found = http.by_pair(runs)
    assert (found["default"]["throughput_ratio"], found["default"]["throughput_ratio_range"]) == (0.25, [0.2, 0.5])
    assert (found["plain"]["throughput_ratio"], found["learning_rest"]["throughput_ratio"]) == (0.5, 0.5)
    assert found["learning_default"]["throughput_ratio_range"] == [0.125, 0.125]
    assert "throughput_ratio_range" not in http.by_pair(runs[:1])["default"]


def test_a_default_server_has_none_of_our_settings_on_its_command_line(tmp_path: Path) -> None:
    command, _ = PlainServer(load("configs/tiny.yaml"), tmp_path, default=True)._command()
    named = {flag for flag in command if flag.startswith("--")}
    limits = {"--dtype", "--max-model-len", "--max-num-seqs", "--kv-cache-memory-bytes"}
    assert named == {"--model", "--served-model-name", "--host", "--port", *limits}


def test_an_answer_at_rest_by_a_trained_version_ends_the_benchmark() -> None:
    side = http.Side("ratchet", PlainServer, "", "policy", iter(()))  # type: ignore[arg-type]
    http.check_base(side, ["", "0"])
    with pytest.raises(SystemExit, match=r"ratchet answered with versions \['2'\], expected version 0"):
        http.check_base(side, ["0", "2"])


def test_a_loaded_first_token_may_come_two_decode_steps_later() -> None:
    idle = [answered(20, 1)] * 3
    late = priority.figures(idle, [answered(30.5, 5)] * 3)
    assert (late["ttft_idle_ms_p50"], late["decode_step_ms"], late["floor_ms"]) == (20.0, 5.0, 30.0)
    assert not late["within_floor"] and priority.figures(idle, [answered(29.5, 5)] * 3)["within_floor"]


@pytest.mark.parametrize("arrivals", ["uniform", "poisson"])
def test_users_come_at_the_same_gaps_for_the_same_seed_and_at_the_mean_that_was_asked_for(arrivals: str) -> None:
    options = argparse.Namespace(users=2000, gap_least=5.0, gap_most=30.0, arrivals=arrivals)
    gaps = priority.gaps_s(random.Random(0), options)
    assert gaps == priority.gaps_s(random.Random(0), options)
    assert sum(gaps) / len(gaps) == pytest.approx(17.5, rel=0.05)
    assert arrivals == "poisson" or (min(gaps) >= 5 and max(gaps) <= 30)
