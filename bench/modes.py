"""What does a serving mode gain over one answer, and what does it cost?

A run starts, and its learning is paused before version 1 exists. The same report questions are then sent over HTTP:
once greedily, once as one sample at the mode's temperature, and once to each serving mode. Answers are checked with the
answer key. `gain` is the paired difference to the greedy answer, with its 95% interval (normal approximation over
questions). There are two controls: the one sample, and the mean vote share of wrong answers (`share_of_wrong`) beside
that of right ones (`share_of_right`), which shows whether the share separates them.
"""

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench._live import LiveRun, drill_arguments
from core.answers import extractor, same
from core.config import MethodConfig, load
from core.messages import Prompt
from methods.data import prompts

SETTINGS = ("gate.enabled=false", "report.questions=null", "learning.groups_per_window=3200")
"""No version is trained before learning is paused."""
AT_ONCE = 8


@dataclass(frozen=True)
class Reply:
    right: bool
    tokens: int
    seconds: float
    share: float | None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=600)
    drill_arguments(parser, "runs/bench-modes")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.questions = 32
    return asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    config = load(options.config)
    asked = prompts.questions(
        config.report.questions or "", extract=extractor(config.method.answer), split=config.report.split
    )[: options.questions]
    one = {"temperature": config.method.sampler.temperature, "seed": options.seed}
    ways = {"greedy": ("policy", {"temperature": 0}), "one sample": ("policy", one)}
    live = LiveRun(options, SETTINGS, anew=True)
    await live.up()
    try:
        async with httpx.AsyncClient(base_url=live.url() or "", timeout=120, trust_env=False) as client:
            await live.rest(client)
            names = [model["id"] for model in (await client.get("/v1/models")).raise_for_status().json()["data"]]
            ways |= {name: (name, {}) for name in names if ":" in name}
            replies = {way: await ask_all(client, asked, config.method, *body) for way, body in ways.items()}
    finally:
        await live.stop()
    greedy = replies["greedy"]
    return {"questions": len(asked), **{way: figures(found, greedy) for way, found in replies.items()}}


async def ask_all(
    client: httpx.AsyncClient,
    asked: Sequence[tuple[Prompt, str]],
    method: MethodConfig,
    model: str,
    fields: dict[str, Any],
) -> list[Reply]:
    extract, places = extractor(method.answer), asyncio.Semaphore(AT_ONCE)

    async def ask(prompt: Prompt, answer: str) -> Reply:
        messages = [message.model_dump(include={"role", "content"}) for message in prompt.messages]
        body = {"model": model, "messages": messages, "max_tokens": method.sampler.max_tokens, **fields}
        async with places:
            started = time.monotonic()
            reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status()
            seconds = time.monotonic() - started
        said = extract(reply.json()["choices"][0]["message"]["content"])
        share = reply.headers.get("x-vote-share")
        tokens = reply.json()["usage"]["completion_tokens"]
        return Reply(same(said, answer), tokens, seconds, None if share is None else float(share))

    return list(await asyncio.gather(*(ask(*pair) for pair in asked)))


def figures(replies: Sequence[Reply], greedy: Sequence[Reply]) -> dict[str, Any]:
    gains = [float(mine.right) - float(plain.right) for mine, plain in zip(replies, greedy, strict=True)]
    half = 1.96 * statistics.pstdev(gains) / math.sqrt(len(gains))
    mean = statistics.fmean(gains)
    shares = {
        name: [reply.share for reply in replies if reply.share is not None and reply.right == right]
        for name, right in (("share_of_right", True), ("share_of_wrong", False))
    }
    return {
        "accuracy": round(statistics.fmean(reply.right for reply in replies), 4),
        "gain": round(mean, 4),
        "gain_95": [round(mean - half, 4), round(mean + half, 4)],
        "tokens_per_answer": round(statistics.fmean(reply.tokens for reply in replies), 1),
        "seconds_p50": round(statistics.median(reply.seconds for reply in replies), 3),
        **{name: round(statistics.fmean(found), 3) for name, found in shares.items() if found},
    }
