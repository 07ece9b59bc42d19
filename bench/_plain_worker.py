"""The worker of a plain vLLM server: what Ratchet mixes into its own, in a process that may use AMX.

Ratchet asks for that as its engine's process starts (serve/engine/patches/fork_server.py); without it vLLM's kernels
die of a short first prompt (SIGILL). vLLM imports this file in the engine's process, before the model is loaded.
"""

import torch

from serve.engine.worker import WorkerHalf

__all__ = ["WorkerHalf"]

torch.cpu._init_amx()
