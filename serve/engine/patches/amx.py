"""Asks the kernel for AMX in an engine's process, as vLLM's own CPU kernels need it.

Patched: nothing; torch's private `torch.cpu._init_amx` is called. Why: on a CPU with AMX a process must ask Linux
(`arch_prctl`) before its first tile instruction. vLLM leaves that to oneDNN, so its own kernels die (SIGILL) when a
short first prompt reaches them before oneDNN ran. Upstream: csrc/cpu in vllm-project/vllm; no issue is known. Holds
for: vLLM 0.31 on a CPU.
"""

import torch

from serve.engine.patches import cpu_build, vllm_patch

PATCH = vllm_patch("amx", without="on a CPU with AMX a short first prompt may kill the engine")


def enable() -> None:
    if cpu_build() and PATCH.on():
        torch.cpu._init_amx()
