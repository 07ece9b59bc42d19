"""A model with a few thousand weights, short sequences for it, and a learner that trains it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.config import Full, LearningConfig, Lora, ModelConfig
from core.objectives import Objective
from training.learner.learner import Learner

SEQUENCES = [[1, 5, 6, 7, 8, 9, 2], [1, 9, 8, 2], [1, 10, 11, 12, 13, 2]]
KINDS = [Lora(rank=4, alpha=8), Full()]


def make_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(32)}, unk_token="w3"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w3").save_pretrained(folder)
    return folder


def learner_of(path: Path, kind: Lora | Full, objective: Objective | None = None, **settings) -> Learner:
    lr = 2e-2 if isinstance(kind, Lora) else 3e-3
    learning = LearningConfig(**{"lr": lr, "device": "cpu"} | settings)
    made = Learner(ModelConfig(path=str(path), weights=kind), learning, render_id="r", objective=objective)
    made.load()
    return made
