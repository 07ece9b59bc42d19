# pyright: basic
"""How much more CPU time does decoding with a LoRA adapter take on a CPU than decoding without one?

One engine with the settings of a run and two random adapters on the config's target modules. Each round decodes the
same number of tokens without an adapter and with each mix, in turns; `ratio` is the median over rounds of CPU seconds
with the mix over CPU seconds without. `one`: all sequences have one adapter. `half`: every second sequence has none.
`two`: the sequences have two adapters in turns. `own`: as `one`, by vLLM's own product, which
serve/engine/patches/cpu_lora.py replaces.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from core.config import EngineConfig, Lora, ModelConfig

SEQUENCES = 32
PROMPT = 4
MIXES: dict[str, tuple[int, ...]] = {"none": (0,), "one": (1,), "half": (1, 0), "two": (1, 2), "own": (1,)}
"""The adapters (0: none) that consecutive sequences have."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="models/word-problems/model")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="*", default=list(Lora().targets))
    parser.add_argument("--tokens", type=int, default=64, help="tokens per sequence")
    parser.add_argument("--rounds", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    model = ModelConfig(
        path=options.model,
        engine_dtype=options.dtype,
        weights=Lora(rank=options.rank, alpha=2 * options.rank, targets=tuple(options.targets)),
    )
    with tempfile.TemporaryDirectory() as folder:
        decoder = Decoder(model, options.threads, options.tokens, Path(folder))
        rounds = [decoder.turn() for _ in range(2 if options.quick else options.rounds + 1)][1:]  # the first one warms
    tokens = SEQUENCES * options.tokens
    return {
        "ratio": {name: _median([turn[name] / turn["none"] for turn in rounds]) for name in MIXES if name != "none"},
        "cpu_s_per_1000_tokens": {name: _median([1000 * turn[name] / tokens for turn in rounds]) for name in MIXES},
        "dtype": options.dtype,
        "threads": options.threads,
        "rank": options.rank,
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


class Decoder:
    """vLLM with a run's settings in this process."""

    def __init__(self, model: ModelConfig, threads: int, tokens: int, folder: Path) -> None:
        from serve.engine.arguments import environment, vllm_arguments

        settings = EngineConfig(max_seqs=SEQUENCES, max_tokens=PROMPT + tokens + 1, threads=threads)
        os.environ.update(environment(model, settings))
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._tokens = tokens
        self._llm = LLM(**vllm_arguments(model, settings, 2, 0))
        self._vocabulary = self._llm.model_config.get_vocab_size()
        self._adapters = {
            number: LoRARequest(str(number), number, str(random_adapter(model, folder / str(number), number)))
            for number in (1, 2)
        }

    def turn(self) -> dict[str, float]:
        """CPU seconds of decoding with each mix."""
        return {name: self._turn(name, mix) for name, mix in MIXES.items()}

    def _turn(self, name: str, mix: Sequence[int]) -> float:
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        from serve.engine.patches.cpu_lora import GroupedLora

        ours = PunicaWrapperCPU.add_lora_linear
        if name == "own":
            PunicaWrapperCPU.add_lora_linear = GroupedLora.vllms  # type: ignore[method-assign]
        try:
            return self._spent(mix, self._tokens + 1) - self._spent(mix, 1)  # without the prompts
        finally:
            PunicaWrapperCPU.add_lora_linear = ours

    def _spent(self, mix: Sequence[int], tokens: int) -> float:
        from vllm import SamplingParams

        rng = Random(0)
        prompts: Any = [
            {"prompt_token_ids": [rng.randrange(3, self._vocabulary) for _ in range(PROMPT)]} for _ in range(SEQUENCES)
        ]
        adapters: Any = [self._adapters.get(mix[i % len(mix)]) for i in range(SEQUENCES)]
        params = SamplingParams(temperature=0.7, max_tokens=tokens, ignore_eos=True)
        before = time.process_time()
        self._llm.generate(prompts, params, use_tqdm=False, lora_request=adapters)
        return time.process_time() - before


def random_adapter(model: ModelConfig, folder: Path, seed: int) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = model.weights
    assert isinstance(lora, Lora)
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=lora.rank, lora_alpha=int(lora.alpha), target_modules=list(lora.targets)))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    tuned.save_pretrained(str(folder))
    return folder
