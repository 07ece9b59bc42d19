"""Windows for the shipped Llama, as a run makes them: its own samples of pool questions, scored by majority vote."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from transformers import AutoTokenizer

from core.answers import extractor
from core.chat_template import PLAIN_TEMPLATE, render_id
from core.codec import pack_floats, pack_ids
from core.config import Full, LearningConfig, Lora, ModelConfig, PatternAnswer, PromptsConfig
from core.messages import Example, Prompt, Window
from core.objectives import Grpo, Sft
from methods.data import prompts
from tests.pure.examples import advantage, completion, imitate, reinforce
from training.learner.learner import Learner
from training.learner.parallel import Parallel
from training.session import TrainingSession

SAMPLES = 4
PROOF_PROMPTS = 4
RATES = {"lora": 3e-3, "full": 3e-4}
BATCH_TOKENS = {"sft": 350, "grpo": 700}
MICRO_BATCH_TOKENS = {"sft": 100, "grpo": None}
STEPS, QUESTIONS = 20, 64
"""A window of QUESTIONS questions has at least STEPS steps."""
OBJECTIVES = {"sft": Sft(), "grpo": Grpo()}
WEIGHTS = {"lora": Lora(), "full": Full()}


def llama_session(
    run_dir: Path, kind: str, objective: str, parallel: Parallel | None = None, devices: int = 1
) -> TrainingSession:
    pool = prompts.read(PromptsConfig(), 0)
    tokens, micro = BATCH_TOKENS[objective], MICRO_BATCH_TOKENS[objective]
    learning = LearningConfig(
        lr=RATES[kind], batch_tokens=tokens, micro_batch_tokens=micro, device="cpu", devices=devices
    )
    asked = [pool[place] for place in range(PROOF_PROMPTS)]
    return TrainingSession(
        run_dir, ModelConfig(weights=WEIGHTS[kind]), learning, 0, OBJECTIVES[objective], asked, parallel
    )


@cache
def llama_windows(*questions: int) -> dict[str, list[Window]]:
    """Objective -> one window for each number of questions. Deterministic."""
    tokenizer = AutoTokenizer.from_pretrained(ModelConfig().path, padding_side="left")
    rendered = render_id(tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template or PLAIN_TEMPLATE)
    engine = Learner(ModelConfig(weights=Full()), LearningConfig(device="cpu", batch_tokens=20_000))
    engine.load()
    pool = prompts.read(PromptsConfig(), 0)
    made: dict[str, list[Window]] = {"sft": [], "grpo": []}
    for number, many in enumerate(questions, start=1):
        asked = [pool[number * 1000 + place] for place in range(many)]
        examples = list(_settled(engine, tokenizer, asked, number, rendered))
        own = engine.completion_logprobs(examples)
        scored = tuple(_with_behaviour(e, pack_floats(own[e.id, 0])) for e in examples)
        won = tuple(_without_advantage(e) for e in examples if advantage(e) > 0)
        made["sft"].append(Window(number=number, group_ids=(), examples=won))
        made["grpo"].append(Window(number=number, group_ids=(), examples=scored))
    return made


def _settled(engine: Learner, tokenizer, asked: list[Prompt], number: int, rendered: str) -> Iterator[Example]:
    """Samples of every question. Samples that agree with the majority get a positive advantage."""
    chats = [[message.model_dump() for message in prompt.messages] for prompt in asked]
    padded = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, padding=True, return_dict=True, return_tensors="pt"
    )
    torch.manual_seed(number)
    rows = engine.model.generate(
        **{name: padded[name] for name in ("input_ids", "attention_mask")},
        do_sample=True,
        temperature=0.7,
        max_new_tokens=60,
        num_return_sequences=SAMPLES,
    )
    width, extract = padded["input_ids"].shape[1], extractor(PatternAnswer())
    for group in range(len(asked)):
        context = padded["input_ids"][group][padded["attention_mask"][group].bool()].tolist()
        completions = [_ended(row, tokenizer) for row in rows[group * SAMPLES : (group + 1) * SAMPLES, width:].tolist()]
        answers = [extract(tokenizer.decode(ids, skip_special_tokens=True)) for ids in completions]
        winner = Counter(answers).most_common(1)[0][0]
        scores = [float(answer is not None and answer == winner) for answer in answers]
        for place, (ids, score) in enumerate(zip(completions, scores, strict=True)):
            yield reinforce(
                f"{number}-{group}-{place}",
                pack_ids(context),
                pack_ids(ids),
                score - 0.9 * sum(scores) / SAMPLES,
                group_id=f"{number}-{group}",
                render_id=rendered,
            )


def _ended(ids: list[int], tokenizer) -> list[int]:
    """The tokens up to and including the stop token."""
    return ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids


def _with_behaviour(example: Example, logprobs: bytes) -> Example:
    row = example.rows[0].model_copy(update={"columns": {"behaviour": logprobs}})
    return example.model_copy(update={"rows": (row,)})


def _without_advantage(example: Example) -> Example:
    held = completion(example)
    context = example.rows[0].token_ids[: -len(held)]
    return imitate(example.id, context, held, group_id=example.group_id, render_id=example.render_id)
