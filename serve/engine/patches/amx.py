"""Requests AMX from Linux in the engine process, because vLLM's own CPU kernels need it.

Patched: nothing; it calls torch's private `torch.cpu._init_amx`. Why: on a CPU with AMX a process must request it from
Linux (`arch_prctl`) before its first tile instruction. vLLM leaves that to oneDNN, so vLLM's own kernels die (SIGILL)
when a short first prompt reaches them before oneDNN has run. Upstream: csrc/cpu in vllm-project/vllm; no issue is
known. Holds for: vLLM 0.31 on a CPU.
"""

import torch

from serve.engine.patches import cpu_build, vllm_patch

PATCH = vllm_patch("amx", without="on a CPU with AMX a short first prompt may kill the engine")


def enable() -> None:
    if cpu_build() and PATCH.on():
        torch.cpu._init_amx()
