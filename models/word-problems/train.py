"""How the base model learns: three stages over a corpus written by careful, careless and answers-only authors.

The mixture is on purpose. Trained on careful text alone, a model this small answers greedily as well as its majority
vote does, and a vote then has nothing to teach it; a corpus like the web's leaves the careful reasoning in it, but not
always on top.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import task
import torch
from llama import Example, Llama, Shape, batches, completion_loss
from task import Problem, corpus_solution, draw_problem, split_of
from tokenizer import BOS, EOS, pieces
from torch import Tensor


@dataclass(frozen=True)
class Stage:
    name: str
    operations: tuple[int, ...]
    answer_only_ratios: tuple[float, ...]
    """For problems of 1, 2, ... 6 operations."""
    careless_ratio: float
    tokens: int
    """Length of the stage, prompts included. Tokens, not seconds, so that a seed gives the same model on any day."""


STAGES = (
    Stage("careful, short", (1, 2, 3), (0.0,) * 6, 0.0, 800_000),
    Stage("half answers only", task.OPERATIONS, (0.5,) * 6, 0.0, 1_000_000),
    # The longer a problem, the more of its authors spare themselves the reasoning.
    Stage("mixed authors", task.OPERATIONS, (0.10, 0.28, 0.40, 0.45, 0.45, 0.45), 0.15, 2_400_000),
)
LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
DECAY_FROM = 0.6
FINAL_LEARNING_RATE_RATIO = 0.02
BATCH_TOKENS = 3000
CHUNK_EXAMPLES = 4096
PROMPT_WEIGHT = 0.1
CLIP_NORM = 1.0


def encode_prompt(vocab: dict[str, int], question: str) -> list[int]:
    """What the chat template renders for one user message. Task text only: an unknown piece is a KeyError."""
    return [BOS, *(vocab[piece] for piece in pieces(question + "\n"))]


def encode_example(vocab: dict[str, int], question: str, solution: str) -> Example:
    prompt = encode_prompt(vocab, question)
    return Example([*prompt, *(vocab[piece] for piece in pieces(solution)), EOS], len(prompt))


class Corpus:
    """Fresh problems of the base split, each written down once by an author drawn for the stage."""

    def __init__(self, vocab: dict[str, int], seed: int) -> None:
        self.vocab = vocab
        self.rng = random.Random(f"base corpus {seed}")
        self.questions: set[str] = set()

    def draw(self, stage: Stage) -> Example:
        problem = self._problem(stage)
        self.questions.add(problem.question)
        answer_only_ratio = stage.answer_only_ratios[problem.operations - 1]
        solution = corpus_solution(self.rng, problem, answer_only_ratio, stage.careless_ratio)
        return encode_example(self.vocab, problem.question, solution)

    def batches(self, stage: Stage) -> Iterator[list[Example]]:
        while True:
            chunk = list(batches([self.draw(stage) for _ in range(CHUNK_EXAMPLES)], BATCH_TOKENS))
            self.rng.shuffle(chunk)
            yield from chunk

    def _problem(self, stage: Stage) -> Problem:
        while True:
            problem = draw_problem(self.rng, self.rng.choice(stage.operations))
            if split_of(problem.question) == "base":
                return problem


def pretrain(corpus: Corpus, seed: int, stages: tuple[Stage, ...], log: Callable[[str], None]) -> Llama:
    torch.manual_seed(seed)
    model = Llama(Shape(vocabulary=len(corpus.vocab)))
    for stage in stages:
        run_stage(model, corpus, stage, log)
    return model


def run_stage(model: Llama, corpus: Corpus, stage: Stage, log: Callable[[str], None]) -> None:
    """One pass over `stage.tokens` tokens with optimizers of its own: warm-up, constant, then linear to almost zero."""
    optimizers = _optimizers(model)
    model.train()
    started_s, tokens, running = time.process_time(), 0, 0.0
    for step, batch in enumerate(corpus.batches(stage)):
        ratio = _learning_rate_ratio(step, tokens / stage.tokens)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * ratio
        loss = completion_loss(model, batch, PROMPT_WEIGHT)
        _update(model, optimizers, loss)
        running = 0.98 * running + 0.02 * loss.item() if step else loss.item()
        tokens += sum(len(example.ids) for example in batch)
        if step % 100 == 0 or tokens >= stage.tokens:
            cpu_s = time.process_time() - started_s
            log(f"{stage.name}: step {step} tokens {tokens} loss {running:.4f} cpu {cpu_s:.0f}s")
        if tokens >= stage.tokens:
            return


def _learning_rate_ratio(step: int, progress: float) -> float:
    decay = 1.0 if progress < DECAY_FROM else max(FINAL_LEARNING_RATE_RATIO, (1 - progress) / (1 - DECAY_FROM))
    return decay * min(1.0, (step + 1) / WARMUP_STEPS)


def _optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed_tokens" in name]
    return [
        torch.optim.Muon(matrices, LEARNING_RATE, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _update(model: Llama, optimizers: list[torch.optim.Optimizer], loss: Tensor) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    for optimizer in optimizers:
        optimizer.step()
