"""The worker of a plain vLLM server: what Ratchet mixes into its own, in a process that may use AMX.

Ratchet asks for that as its engine's process starts (serve/engine_process.py), else vLLM's kernels die (SIGILL) of a
short first prompt. vLLM imports this file in the engine's process, before the model is loaded.
"""

import torch

from serve.engine_worker import WorkerHalf

__all__ = ["WorkerHalf"]

torch.cpu._init_amx()
