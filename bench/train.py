# pyright: basic
"""How fast does the trainer process a window, and how much memory does it need? One learner of a config, alone.

`--shape` builds a model of that shape with random weights, for a machine without the config's own model: speed and
memory depend on shapes, not on the values of weights. Completions are random tokens of one length, the longest that the
config samples.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from core.codec import pack_floats, pack_ids
from core.config import Config, load
from core.messages import BASE, Example, PolicyRef, Row, Window
from core.objectives import Grpo, Sft
from methods.rows import continued
from training.learner.learner import Learner
from training.versions.publish import publish, publish_base

ROOT = Path(__file__).parents[1]
GIB = 2**30
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    "qwen3-1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
}
"""From the models' config.json. QWEN3 has the settings that they share."""
QWEN3 = {
    "vocab_size": 151936,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("--shape", choices=SHAPES, help="a model of this shape with random weights")
    parser.add_argument("--objective", default="sft", choices=("sft", "grpo"))
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("overrides", nargs="*", help="settings, as for `ratchet up`")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Raises: torch.OutOfMemoryError when a step does not fit; lower `learning.micro_batch_tokens`."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = list(options.overrides)
        if options.shape:
            overrides.append(f"model.path={random_model(options.shape, Path(folder) / 'model')}")
        config = load(options.config, overrides)
        return measure(config, options, Path(folder) / "run")


def random_model(shape: str, folder: Path) -> Path:
    """Created on the GPU if there is one, because a CPU is slow to fill two billion random numbers."""
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(Qwen3Config(**QWEN3, **SHAPES[shape]), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(ROOT / "models/word-problems/model").save_pretrained(folder)
    return folder


def measure(config: Config, options: argparse.Namespace, run_dir: Path) -> dict[str, Any]:
    learner = Learner(config.model, config.learning, objective=Sft() if options.objective == "sft" else Grpo())
    learner.load()
    on_gpu = learner.device.type == "cuda"
    vocabulary = AutoConfig.from_pretrained(config.model.path).vocab_size
    completion = config.method.sampler.max_tokens
    publish_base(learner, run_dir, [random_ids(Random(0), 64, vocabulary)])
    before = norm(learner)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    learner.train(window(1, config, options, completion, vocabulary, steps=1))  # compiles kernels, fills caches
    stats = learner.train(window(2, config, options, completion, vocabulary, options.steps))
    began = time.monotonic()
    published = publish(learner, PolicyRef(version=1), BASE, 2, run_dir, {})
    publish_s = time.monotonic() - began
    trained = sum(parameter.numel() for parameter in learner.weights().values())
    return {
        "model": options.shape or config.model.path,
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()),
        "trained_parameters": trained,
        "weights": config.model.weights.kind,
        "dtype": config.model.trainer_dtype,
        "objective": options.objective,
        "batch_tokens": config.learning.batch_tokens,
        "micro_batch_tokens": config.learning.micro_batch_tokens,
        "completion_tokens": completion,
        "steps": stats["steps"],
        "step_s": round(stats["seconds"] / stats["steps"], 4),
        "tokens_per_s": round(stats["tokens"] / stats["seconds"]),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB if on_gpu else peak_rss() / GIB, 2),
        "publish_s": round(publish_s, 2),
        "published_mib": round(sum(f.stat().st_size for f in Path(published.path).iterdir()) / 2**20, 1),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {config.learning.threads} threads",
        "weights_norm": [before, norm(learner)],
    }


def window(
    number: int, config: Config, options: argparse.Namespace, completion: int, vocabulary: int, steps: int
) -> Window:
    """A window with as many examples of one length as fill `steps` steps."""
    rng = Random(number)
    many = steps * max(1, config.learning.batch_tokens // (options.prompt_tokens + completion))
    common = {"group_id": "g", "method": "bench", "render_id": "r", "policy": BASE}
    pairs = [
        (random_ids(rng, options.prompt_tokens, vocabulary), random_ids(rng, completion, vocabulary))
        for _ in range(many)
    ]
    examples = tuple(
        Example(id=str(i), rows=(drawn(pack_ids(prompt), pack_ids(ids), options.objective, rng),), **common)
        for i, (prompt, ids) in enumerate(pairs)
    )
    return Window(number=number, group_ids=("g",), examples=examples)


def drawn(prompt: bytes, completion: bytes, objective: str, rng: Random) -> Row:
    if objective == "sft":
        return continued(prompt, completion)
    behaviour = pack_floats([-12.0] * (len(completion) // 4))
    return continued(prompt, completion, advantage=rng.choice((-1.0, 1.0)), columns={"behaviour": behaviour})


def norm(learner: Learner) -> float:
    """Norm of all trained weights. It must differ before and after, or nothing was trained."""
    return float(torch.stack([tensor.float().norm() for tensor in learner.weights().values()]).norm())


def random_ids(rng: Random, count: int, vocabulary: int) -> list[int]:
    return [rng.randrange(3, vocabulary) for _ in range(count)]


def peak_rss() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
