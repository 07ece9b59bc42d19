"""What does a serving mode gain over one answer, and over a majority of as many tokens?

A run starts, and its learning is paused before version 1 exists. The same report questions are then sent over HTTP:
once greedily, POOL times as samples, and once to each serving mode that needs nothing but the question, the control
`self-refine` included. Answers are checked with the answer key, which no mode can see.

    gain            paired difference to the greedy answer, with its 95% interval (normal approximation over questions)
    majority        the vote of as many samples as the mode's tokens buy, at least one, and the paired `lead` over it
    kept, mended    of the right greedy answers, the part that stays right (CL); of the wrong ones, the part that is
                    mended (CS); rss above .5: the mode is more often right than the greedy answer (arXiv 2412.19513)
    oracle          of this bench alone: the key says when the greedy answer stays and when the mode's is taken. What it
                    gains is the key's, not the mode's (arXiv 2310.01798); no serving path has it
    share_of_...    the mean vote share of right and of wrong answers, which shows whether the share separates them
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
from core.messages.versions import Question
from methods.data import prompts
from methods.monitors import cl_cs_rss, conditionals
from methods.scorers.majority import count

SETTINGS = ("gate.enabled=false", "report.questions=null", "learning.groups_per_window=3200", "serve.modes.off=[]")
"""No version is trained before learning is paused."""
POOL = 16
"""Samples a question for the majorities."""
AT_ONCE = 8


@dataclass(frozen=True)
class Reply:
    right: bool
    tokens: float
    seconds: float
    share: float | None
    answer: str | None = None


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
    sampled = {"temperature": config.method.sampler.temperature, "top_p": config.method.sampler.top_p, "n": POOL}
    live = LiveRun(options, SETTINGS, anew=True)
    await live.up()
    try:
        async with httpx.AsyncClient(base_url=live.url() or "", timeout=120, trust_env=False) as client:
            await live.rest(client)
            models = (await client.get("/v1/models")).raise_for_status().json()["data"]
            names = [model["id"] for model in models if ":" in model["id"] and not model["needs"]]
            (greedy,) = await ask_all(client, asked, config.method, "policy", {"temperature": 0})
            pool = await ask_all(client, asked, config.method, "policy", {**sampled, "seed": options.seed})
            replies = {name: (await ask_all(client, asked, config.method, name, {}))[0] for name in names}
    finally:
        await live.stop()
    keys = [question.answer for question in asked]
    found = {name: {**figures(said, greedy), **against_majority(said, pool, keys)} for name, said in replies.items()}
    return {"questions": len(asked), "greedy": figures(greedy, greedy), "one sample": figures(pool[0], greedy), **found}


async def ask_all(
    client: httpx.AsyncClient,
    asked: Sequence[Question],
    method: MethodConfig,
    model: str,
    fields: dict[str, Any],
) -> list[list[Reply]]:
    """The answers to all questions, in a list for each of the `n` samples; tokens are those of one sample."""
    extract, places = extractor(method.answer), asyncio.Semaphore(AT_ONCE)

    async def ask(place: int, question: Question) -> list[Reply]:
        messages = [message.model_dump(include={"role", "content"}) for message in question.prompt.messages]
        body = {"model": model, "messages": messages, "max_tokens": method.sampler.max_tokens, **fields}
        if "seed" in fields:  # one seed for all questions would draw all first tokens by the same lot
            body["seed"] = fields["seed"] + place * POOL
        async with places:
            started = time.monotonic()
            reply = await client.post("/v1/chat/completions", json=body)
            seconds = time.monotonic() - started
        if reply.status_code == 400:  # the mode's turns outgrow the engine
            return [Reply(False, 0, seconds, None)]
        reply.raise_for_status()
        choices = reply.json()["choices"]
        said = [extract(c["message"]["content"]) if c["finish_reason"] == "stop" else None for c in choices]
        share = reply.headers.get("x-vote-share")
        tokens = reply.json()["usage"]["completion_tokens"] / len(choices)
        known = None if share is None else float(share)
        return [Reply(same(each, question.answer), tokens, seconds, known, each) for each in said]

    replies = await asyncio.gather(*(ask(*each) for each in enumerate(asked)))
    return [list(sample) for sample in zip(*replies, strict=True)]


def against_majority(
    said: Sequence[Reply], pool: Sequence[Sequence[Reply]], keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The mode beside the vote of as many samples as its tokens buy."""
    one = statistics.fmean(reply.tokens for sample in pool for reply in sample)
    wanted = statistics.fmean(reply.tokens for reply in said) / one
    k = max(1, min(len(pool), int(wanted)))
    winners = [count((sample[i].answer, 1.0) for sample in pool[:k]).winner for i in range(len(keys))]
    rights = [same(winner, key) for winner, key in zip(winners, keys, strict=True)]
    lead, low, high = paired([float(mine.right) - float(right) for mine, right in zip(said, rights, strict=True)])
    told = {"samples": k, "wanted": round(wanted, 2), "accuracy": round(statistics.fmean(rights), 4)}
    return {"majority": {**told, "lead": lead, "lead_95": [low, high]}}


def paired(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95% limits by the normal approximation."""
    half = 1.96 * statistics.pstdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return round(mean, 4), round(mean - half, 4), round(mean + half, 4)


def figures(replies: Sequence[Reply], greedy: Sequence[Reply]) -> dict[str, Any]:
    gain, low, high = paired([float(a.right) - float(b.right) for a, b in zip(replies, greedy, strict=True)])
    turns = [conditionals([(b.right, a.right)]) for a, b in zip(replies, greedy, strict=True)]
    second = cl_cs_rss(*zip(*turns, strict=True)) if turns else None
    shares = {
        name: [reply.share for reply in replies if reply.share is not None and reply.right == right]
        for name, right in (("share_of_right", True), ("share_of_wrong", False))
    }
    return {
        "accuracy": round(statistics.fmean(reply.right for reply in replies), 4),
        "gain": gain,
        "gain_95": [low, high],
        "kept": second and _rounded(second.kept),
        "mended": second and _rounded(second.mended),
        "rss": second and _rounded(second.rss),
        "oracle": round(statistics.fmean(a.right or b.right for a, b in zip(replies, greedy, strict=True)), 4),
        "tokens_per_answer": round(statistics.fmean(reply.tokens for reply in replies), 1),
        "refused": sum(reply.tokens == 0 for reply in replies),
        "seconds_p50": round(statistics.median(reply.seconds for reply in replies), 3),
        **{name: round(statistics.fmean(found), 3) for name, found in shares.items() if found},
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
