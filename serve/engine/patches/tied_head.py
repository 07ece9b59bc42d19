"""Packs the output head of a CPU model again after a swap of its weights.

Patched: state of vLLM's layers, after `finalize_layerwise_reload`
(vllm/model_executor/model_loader/reload/layerwise.py). Why: with tied embeddings the head multiplies with its own
packed copy, which the reload does not update. Answers then come from the old head, without an error. Upstream:
vllm-project/vllm pull request 32133 added the reload; no issue about tied heads is known. Holds for: vLLM 0.31 on a
CPU.
"""

from typing import Any

from serve.engine.patches import vllm_patch

PATCH = vllm_patch("tied_head", without="full weights with tied embeddings cannot be swapped: their proof fails")


def pack_again(model: Any) -> None:
    head: Any = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear") and PATCH.on():
        head.quant_method.process_weights_after_loading(head)
