"""The patches of vLLM: the patched code is still in its place, and vLLM still needs each patch.

If a test fails here, read the file of the patch. Remove the patch if vLLM has fixed the problem.
"""

import inspect
import multiprocessing.forkserver
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.patching import SWITCH

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[4]
MODEL = ROOT / "models/word-problems/model"


def printed(code: str, *arguments: str, **environment: str) -> str:
    """The output of `code`, run in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_parts_of_vllm_that_are_read_are_where_they_were() -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferEngine
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.openai.models.serving import OpenAIModelRegistry, OpenAIServingModels
    from vllm.logprobs import FlatLogprobs
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.model_manager import LoRAModelManager
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    assert list(inspect.signature(build_app).parameters) == ["args", "supported_tasks", "model_config"]
    assert list(inspect.signature(init_app_state).parameters)[:4] == [
        "engine_client",
        "state",
        "args",
        "supported_tasks",
    ]
    serving = inspect.getsource(OpenAIServingModels.__init__)
    assert "self.lora_requests" in serving and "base_model_paths=base_model_paths" in serving, "one shared list"
    assert "base_model_paths" in inspect.getsource(OpenAIModelRegistry.is_base_model)
    assert {"start_indices", "end_indices", "logprobs"} <= set(FlatLogprobs.__dataclass_fields__)
    assert "self._adapter_manager" in inspect.getsource(WorkerLoRAManager)
    assert "self.output_handler: asyncio.Task | None" in inspect.getsource(AsyncLLM.__init__)
    manager = inspect.getsource(LoRAModelManager)
    assert all(name in manager for name in ("lora_index_to_id", "self.modules", "self.packed_modules"))
    assert {"update_metadata", "add_lora_linear", "token_lora_indices"} <= set(dir(PunicaWrapperCPU))
    assert list(inspect.signature(BaseLinearLayerWithLoRA.set_lora).parameters) == ["self", "index", "lora_a", "lora_b"]
    assert issubclass(ParallelLMHead, VocabParallelEmbedding)
    assert callable(WeightTransferEngineFactory.register_engine)
    assert {
        "start_weight_update",
        "receive_weights",
        "finish_weight_update",
    } <= WeightTransferEngine.__abstractmethods__
    assert {"flat_logprobs", "skip_reading_prefix_cache"} <= set(inspect.signature(SamplingParams).parameters)
    for name in ("pause_generation", "resume_generation", "add_lora", "remove_lora", "collective_rpc", "check_health"):
        assert inspect.iscoroutinefunction(getattr(AsyncLLM, name))


def test_cpu_lora_vllm_still_gives_tokens_of_the_base_the_adapter_in_the_last_slot() -> None:
    from vllm.lora.ops.torch_ops import bgmv_expand

    weights = torch.stack([torch.ones(3, 2), 2 * torch.ones(3, 2)])  # two slots with rank 2
    output = torch.zeros(2, 3)
    bgmv_expand(torch.ones(2, 2), weights, output, torch.tensor([0, -1]))
    assert output.tolist() == [[2, 2, 2], [4, 4, 4]], "the second row, of the base, would be 0 without the bug"


def test_fork_server_vllm_still_cannot_fork_an_engine_from_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs
    from vllm.v1.engine import utils

    assert "get_mp_context()" in inspect.getsource(utils.CoreEngineProcManager)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "forkserver")
    with pytest.raises(ValueError, match="forkserver"):
        envs.environment_variables["VLLM_WORKER_MULTIPROC_METHOD"]()
    python = vars(multiprocessing.forkserver.ForkServer())
    assert {"_forkserver_address", "_forkserver_alive_fd"} <= python.keys()
    assert isinstance(multiprocessing.forkserver._forkserver, multiprocessing.forkserver.ForkServer)  # type: ignore[attr-defined]
    assert callable(multiprocessing.forkserver.connect_to_new_process)


def test_log_handlers_setting_an_engine_up_still_takes_the_target_from_a_buffering_handler() -> None:
    code = """
        import logging
        from logging.handlers import MemoryHandler
        handler = MemoryHandler(1, target=logging.NullHandler())
        logging.getLogger("ray.serve").addHandler(handler)
        from vllm.config.logging import LoggingConfig
        from vllm.logger import configure_logging_if_needed
        configure_logging_if_needed(LoggingConfig())
        print(handler.target)
    """
    from vllm.v1.engine.async_llm import AsyncLLM

    assert printed(code).strip().endswith("None")
    assert "configure_logging_if_needed(" in inspect.getsource(AsyncLLM.__init__)


def test_plain_app_vllms_bootstrap_still_builds_the_middleware_at_once() -> None:
    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware
    from vllm.entrypoints.launchers import app as launcher

    app = FastAPI()
    app.add_middleware(CORSMiddleware)
    app = launcher.sagemaker_standards_bootstrap(app)
    assert app.user_middleware and app.middleware_stack is not None
    assert "init_entrypoints_middleware(args" in inspect.getsource(launcher.build_app), "CORS with any arguments"


def test_stat_logger_vllm_still_tells_of_every_step_and_steps_can_be_added() -> None:
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger
    from vllm.v1.metrics.stats import IterationStats, PromptTokenStats

    told = ["self", "scheduler_stats", "iteration_stats", "mm_cache_stats", "engine_idx"]
    assert list(inspect.signature(RayPrometheusStatLogger.record).parameters) == told
    assert all(isinstance(value, int | float | list | PromptTokenStats) for value in vars(IterationStats()).values())


def test_stream_events_vllm_still_makes_each_event_as_pydantic_models() -> None:
    code = """
        from pydantic import BaseModel
        from vllm.entrypoints.openai.chat_completion import serving
        from serve.engine.patches.stream_events import MADE
        print(all(issubclass(getattr(serving, name), BaseModel) for name in ("DeltaMessage", *MADE)))
    """
    assert printed(code).strip().endswith("True")  # another test of this process may have installed the patch


def test_amx_torch_can_still_ask_for_it() -> None:
    assert callable(torch.cpu._init_amx)


def test_tied_head_vllm_still_leaves_the_head_stale_and_the_proof_finds_it(tmp_path: Path) -> None:
    changed = shutil.copytree(MODEL, tmp_path / "v1")
    tensors = {name: 1.1 * tensor for name, tensor in load_file(MODEL / "model.safetensors").items()}
    (changed / "model.safetensors").unlink()
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    code = """
        import asyncio, sys
        from core.config import EngineConfig, Full, ModelConfig
        from core.errors import ProofError
        from core.messages import BASE, PolicyRef, Published
        from serve.engine.engine import Engine

        async def main():
            model = ModelConfig(path=sys.argv[1], weights=Full(), engine_dtype="float32")
            engine = Engine(model, EngineConfig(max_seqs=4, kv_cache_bytes=2**26), max_versions=1, seed=0)
            await engine.start()
            ref = PolicyRef(version=1)
            try:
                await engine.swap(Published(ref=ref, path=sys.argv[2], parent=BASE, window=1, fingerprint="1"))
            except ProofError as error:
                print(error)
            finally:
                await engine.stop()

        asyncio.run(main())
    """
    found = printed(code, str(MODEL), str(changed), **{SWITCH: "tied_head"})
    assert "1 tensors differ in the engine, first: lm_head.weight" in found


def test_what_is_switched_off_leaves_vllm_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.entrypoints.openai.chat_completion import serving
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.v1.engine import utils
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    from serve.engine.patches import fork_server, stream_events
    from serve.engine.patches.cpu_lora import GroupedLora
    from serve.engine.patches.stat_logger import stat_logger

    def patched() -> list[object]:
        return [PunicaWrapperCPU.add_lora_linear, serving.DeltaMessage, utils.get_mp_context, stat_logger(print)]

    install: list[Callable[[], Any]] = [GroupedLora.install, stream_events.install, fork_server.adopt]
    monkeypatch.setenv(SWITCH, "cpu_lora,stream_events,fork_server,stat_logger")
    before = patched()
    assert before[-1] is RayPrometheusStatLogger
    for patch in install:
        patch()
    assert patched() == before
