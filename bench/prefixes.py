# pyright: basic
"""How much does the trainer save by computing what examples begin with once? Beside plain rows, batch by batch.

The config's prompts are answered by its model, as in a run, and packed into steps as a window is. Some steps of every
size are trained with sharing and without, in turn. `--apart` replaces every prompt by random tokens, so that nothing is
shared: then the two should cost the same.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from transformers import AutoTokenizer

from bench.train import random_ids
from core.chat_template import PLAIN_TEMPLATE, rendered
from core.codec import pack_floats, pack_ids
from core.config import Config, load
from core.messages import BASE, Example, Window
from core.objectives import Grpo, Sft
from methods.data import prompts
from methods.rows import continued
from training.learner.collate import length, pack_batches
from training.learner.learner import Learner

ASKED = 8
"""Questions that are answered together."""
SIDES = ("plain", "shared")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("--objective", default="sft", choices=("sft", "grpo"))
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--answers", type=int, default=4, help="sampled for each question; all are trained on")
    parser.add_argument("--tokens", type=int, default=16_000, help="padded tokens to train on, for each size of a step")
    parser.add_argument("--apart", action="store_true", help="random prompts of the same lengths")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], help="settings, as for `ratchet up`")


def run(options: argparse.Namespace) -> dict[str, Any]:
    config = load(options.config, options.overrides)
    if options.quick:
        options.questions, options.tokens, options.batch_tokens = 16, 4_000, options.batch_tokens[:2]
    learner = learner_of(config, options.objective)
    able = learner.trained_model.share_tokens
    examples = answered(learner, config, options)
    compared(learner, examples, 1, 1, able)  # fills caches
    sizes = [length(e) for e in examples]
    return {
        "model": config.model.path,
        "weights": config.model.weights.kind,
        "dtype": config.model.trainer_dtype,
        "objective": options.objective,
        "apart": options.apart,
        "share_tokens": able if able < 1e9 else "any",
        "examples": len(examples),
        "context_tokens": statistics.mean(length(e) - e.rows[0].targets for e in examples),
        "answer_tokens": statistics.mean(e.rows[0].targets for e in examples),
        "longest_tokens": max(sizes),
        "steps": [compared(learner, examples, tokens, options.tokens, able) for tokens in options.batch_tokens],
    }


def learner_of(config: Config, objective: str) -> Learner:
    learner = Learner(config.model, config.learning, objective=Sft() if objective == "sft" else Grpo())
    learner.load()
    return learner


def answered(learner: Learner, config: Config, options: argparse.Namespace) -> list[Example]:
    """Examples of the config's prompts with sampled answers."""
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    template = tokenizer.chat_template or PLAIN_TEMPLATE
    pool = prompts.read(config.prompts, 0)
    contexts = [rendered(tokenizer, template, pool[place].messages) for place in range(options.questions)]
    torch.manual_seed(0)
    rng, made = Random(0), []
    for start in range(0, len(contexts), ASKED):
        asked = contexts[start : start + ASKED]
        for context, completion in sampled(learner, config, asked, options.answers, tokenizer.eos_token_id):
            if options.apart:
                context = random_ids(rng, len(context), len(tokenizer))
            made.append(example(len(made), context, completion, options.objective))
    return made


@torch.no_grad()
def sampled(
    learner: Learner, config: Config, contexts: list[list[int]], answers: int, eos: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Contexts and completions. The contexts are computed once for all answers."""
    width = max(map(len, contexts))
    ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in contexts])
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in contexts])
    places_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    cache = learner.model(
        input_ids=ids_BT[:, :-1], attention_mask=mask_BT[:, :-1], position_ids=places_BT[:, :-1], use_cache=True
    ).past_key_values
    cache.batch_repeat_interleave(answers)
    sampler = config.method.sampler
    rows = learner.model.generate(
        input_ids=ids_BT.repeat_interleave(answers, 0),
        attention_mask=mask_BT.repeat_interleave(answers, 0),
        past_key_values=cache,
        do_sample=True,
        temperature=sampler.temperature,
        max_new_tokens=sampler.max_tokens,
        pad_token_id=eos,
        eos_token_id=eos,
    )
    for place, row in enumerate(rows[:, width:].tolist()):
        yield contexts[place // answers], row[: row.index(eos) + 1] if eos in row else row


def example(number: int, context: list[int], completion: list[int], objective: str) -> Example:
    context_ids, completion_ids = pack_ids(context), pack_ids(completion)
    if objective == "sft":
        row = continued(context_ids, completion_ids)
    else:
        behaviour = pack_floats([-1.0] * len(completion))
        row = continued(context_ids, completion_ids, advantage=(-1.0) ** number, columns={"behaviour": behaviour})
    return Example(id=str(number), group_id="g", method="bench", render_id="r", policy=BASE, rows=(row,))


def compared(learner: Learner, examples: list[Example], batch_tokens: int, tokens: int, able: float) -> dict[str, Any]:
    """Trains some of the steps that a window of these examples has, each on both sides."""
    learner.learning = learner.learning.model_copy(update={"batch_tokens": batch_tokens})
    batches = pack_batches(examples, batch_tokens, Random(0))
    many = max(1, min(len(batches), tokens // batch_tokens))
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number, batch in enumerate(batches[:many]):
        for side in SIDES if number % 2 else reversed(SIDES):
            learner.trained_model.share_tokens = able if side == "shared" else 0
            found[side].append(learner.train(window(batch)))
    learner.trained_model.share_tokens = able
    return told_of(found, batch_tokens)


def told_of(found: dict[str, list[dict[str, float]]], batch_tokens: int) -> dict[str, Any]:
    """Also prints it, because a real model takes minutes for each size of a step."""
    told: dict[str, Any] = {side: summed(stats) for side, stats in found.items()}
    each = [s["cpu_s"] / p["cpu_s"] for p, s in zip(found["plain"], found["shared"], strict=True)]
    step = {
        "batch_tokens": batch_tokens,
        "batches": len(each),
        "cpu_ratio": round(told["shared"]["cpu_s"] / told["plain"]["cpu_s"], 3),
        "cpu_ratio_min_median_max": [round(f(each), 3) for f in (min, statistics.median, max)],
        **told,
    }
    print(json.dumps(step), flush=True)
    return step


def summed(stats: list[dict[str, float]]) -> dict[str, float]:
    names = ("cpu_s", "tokens", "computed_tokens", "target_tokens")
    total = {name: sum(each[name] for each in stats) for name in names}
    per_1000 = 1000 * total["cpu_s"] / total["target_tokens"]
    return {**total, "cpu_s": round(total["cpu_s"], 3), "cpu_s_per_1000_answer_tokens": round(per_1000, 2)}


def window(batch: list[Example]) -> Window:
    return Window(number=1, group_ids=(), examples=tuple(batch))
