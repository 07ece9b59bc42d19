"""Dry run of the config for a real model: a small random Qwen3, JSONL prompts with one bad line, no answer keys."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tests.real.conftest import ROOT, Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def small_qwen3(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/word-problems/model")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer) + (-len(tokenizer)) % 8,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,  # the smallest head that vLLM's CPU attention supports
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_gpu_config_runs_dry_on_a_small_random_qwen3(start_run: Callable[..., Run], tmp_path: Path) -> None:
    model = small_qwen3(tmp_path / "qwen3")
    lines = [json.dumps({"prompt": f"What is {i} plus {i}?"}) for i in range(60)]
    (tmp_path / "prompts.jsonl").write_text("\n".join([lines[0], "{not json", *lines[1:]]))
    anchors = {"prompt": [f"What is {i} minus 1?" for i in range(70)], "answer": [str(i % 10) for i in range(70)]}
    pq.write_table(pa.table(anchors), tmp_path / "anchors.parquet")
    run = start_run(
        "--versions",
        "1",
        f"model.path={model}",
        "model.trainer_dtype=float32",
        f"prompts.path={tmp_path}/prompts.jsonl",
        f"gate.anchors={tmp_path}/anchors.parquet",
        "gate.held_out=null",  # a random model ends no answer, so it makes no anchors
        f"report.questions={tmp_path}/deleted.parquet",
        "gate.max_probes=64",
        "method.sampler.n=4",
        "method.sampler.max_tokens=24",
        "method.options.min_share=0",
        "method.answer={kind: pattern, pattern: '(\\w)'}",
        "learning.groups_per_window=24",
        "learning.device=cpu",
        "learning.batch_tokens=2000",
        "learning.micro_batch_tokens=1000",
        "serve.engine.max_seqs=32",
        "serve.engine.max_tokens=256",
        "serve.engine.kv_cache_bytes=33554432",
        "serve.reserve_seats=4",
        config="configs/qwen3-1.7b.yaml",
    )
    text = run.wait(500)
    report = json.loads((run.dir / "report.json").read_text())
    assert len(report["versions"]) == 2, text
    assert report["accuracy_start"] is None and report["accuracy_end"] is None
    assert report["versions"][1]["verdict"] in ("promote", "reject", "hold")
    assert "prompts.jsonl:2" in text, "the log does not name the file and line of the skipped prompt"
