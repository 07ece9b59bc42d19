"""Converts a GGUF file to a model folder that transformers and vLLM load, in bfloat16.

transformers reads GGUF, but not all of it: for SmolLM2 it loses the end-of-answer token, the splitting of numbers into
digits, and the decoder of the tokenizer. Those are set here; the chat template arrives intact. The weights were
quantised to 4 bits in the package, so this is that model and not the published one.
"""

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import decoders, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from core.errors import ArtifactError
from training.pretrained.catalog import Pretrained

SAMPLES = ("Tom has 1,234 apples.\n  He eats 5.", "Straße, naïve; 日本語 🙂\tend")
"""Texts that the tokenizer must give back letter by letter."""


def convert(gguf: Path, made: Pretrained, to: Path) -> None:
    """Write model and tokenizer into the folder `to`.

    Raises: ArtifactError if the file cannot be read, a text does not survive its tokenizer, or the weights are not
    those that this conversion gave when it was checked."""
    logging.disable_progress_bar()
    try:
        tokenizer = _tokenizer(gguf, made)
        model = _model(gguf, made)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{gguf.name} cannot be converted: {error}; fetch it again") from None
    for text in SAMPLES:
        if (back := tokenizer.decode(tokenizer(text).input_ids)) != text:
            raise ArtifactError(f"the tokenizer of {gguf.name} gives back {back!r} for {text!r}")
    if (digest := weights_digest(model)) != made.weights:
        raise ArtifactError(f"the weights of {gguf.name} have digest {digest} as converted, expected {made.weights}")
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over name, shape and bytes of every parameter, in the order of names. Tied parameters count once."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        found.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _tokenizer(gguf: Path, made: Pretrained) -> Any:
    read: Any = cast(Any, AutoTokenizer).from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = read.backend_tokenizer
    backend.pre_tokenizer = cast(Any, pre_tokenizers.Sequence)(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    bos, eos = read.convert_ids_to_tokens([made.bos, made.eos])
    tokenizer = cast(Any, PreTrainedTokenizerFast)(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        unk_token=made.unknown,
        clean_up_tokenization_spaces=False,
        model_max_length=made.context,
    )
    tokenizer.chat_template = read.chat_template
    return tokenizer


def _model(gguf: Path, made: Pretrained) -> Any:
    model: Any = cast(Any, AutoModelForCausalLM).from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    model.hf_quantizer, model.is_quantized = None, False  # it is not: transformers would refuse to save it
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.rms_norm_eps = made.rms_norm_eps
    model.config.bos_token_id, model.config.eos_token_id = made.bos, made.eos
    model.config.pad_token_id, model.config.unk_token_id = made.eos, None
    model.generation_config = GenerationConfig(bos_token_id=made.bos, eos_token_id=made.eos, pad_token_id=made.eos)
    return model
