# pyright: basic
"""The model that a learner trains: the base model with its adapter, and its weights in and out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from core.config import LearningConfig, Lora, ModelConfig
from core.errors import ArtifactError
from training.learner.collate import Collated
from training.learner.logits import logits_at
from training.learner.parallel import Parallel
from training.learner.sharing import share_tokens

CONTINUED_TOGETHER = 8
"""Sequences of a batch of `continued`."""


class LearnerModel:
    """Loads the base model, adds the adapter (with LoRA), and reads and writes the trained weights."""

    def __init__(self, config: ModelConfig, learning: LearningConfig, seed: int, parallel: Parallel) -> None:
        self.config = config
        self.device = torch.device(_device(learning.device))
        self._threads = learning.threads
        self._seed = seed
        self._parallel = parallel
        self._model: Any = None
        self._base: dict[str, torch.Tensor] = {}
        self._frozen_base: Any = None
        self.share_tokens: float = 0
        """Longest example that may share a row with others; set by `load`. 0: every example has a row of its own."""

    @property
    def lora(self) -> Lora | None:
        return self.config.weights if isinstance(self.config.weights, Lora) else None

    @property
    def model(self) -> Any:
        """The model, in the form that transformers or PEFT can save. Raises: RuntimeError before `load`."""
        if self._model is None:
            raise RuntimeError("the learner has no model yet; call load() first")
        return self._model

    def load(self) -> None:
        """Read the base model; with LoRA, add an adapter that does not change the output yet. Slow. Sets the number of
        torch threads of this process. Raises: ArtifactError if the model does not exist."""
        torch.set_num_threads(self._threads)
        disable_progress_bar()
        with torch.random.fork_rng(devices=[]):
            model = self._read()
            if self.lora is not None:
                model = self._adapted(model, self.lora)
        # before several processes share the model; they must agree
        self.share_tokens = self._parallel.by_first(lambda: share_tokens(_core(model.eval())))
        self._model = self._placed(model)
        if self.lora is not None:
            self._base = {name: parameter.detach().clone() for name, parameter in self.trainable().items()}

    def _placed(self, model: Any) -> Any:
        # eval() keeps dropout off, because the engine samples without dropout.
        core = _core(model.eval())
        core.logits_at = MethodType(logits_at, core)
        self._parallel.place(core, self.device)
        return model

    def _read(self) -> Any:
        """The base model, unchanged from disk."""
        dtype = getattr(torch, self.config.trainer_dtype)
        try:
            return AutoModelForCausalLM.from_pretrained(self.config.path, dtype=dtype, attn_implementation="sdpa")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"model.path={self.config.path!r} cannot be loaded: {error}") from None

    def _adapted(self, model: Any, lora: Lora) -> Any:
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # a float works: the scale is alpha / rank
            target_modules=list(lora.targets),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
        generator = torch.Generator().manual_seed(self._seed)
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(parameter.data, a=math.sqrt(5), generator=generator)
        return adapted

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside this context the model is the base model. With LoRA the adapter is off; otherwise a frozen copy of the
        base is used, and read from disk on first use."""
        if self.lora is not None:
            with self.model.disable_adapter():
                yield
            return
        if self._frozen_base is None:
            self._frozen_base = self._placed(self._read().requires_grad_(False))
        trained, self._model = self._model, self._frozen_base
        try:
            yield
        finally:
            self._model = trained

    def logits(self, rows: Collated) -> torch.Tensor:
        """Logits [U, V] at the kept places of rows on the device; see training.learner.logits."""
        return _core(self.model).logits_at(rows.ids_BT, rows.kept_U, rows.depths_BT, rows.ends_BT)

    def logits_at(self, ids_BT: torch.Tensor, keep_BT: torch.Tensor) -> torch.Tensor:
        """Logits [N, V] at the kept places of plain rows, row by row."""
        return _core(self.model).logits_at(ids_BT, keep_BT.flatten().nonzero()[:, 0])

    @torch.no_grad()
    def continued(self, contexts: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
        """Each context with its greedy continuation, up to the token that ends it. In batches, because a step of the
        model costs almost as much for one sequence as for several."""
        ends = self.model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        found: list[list[int]] = []
        for start in range(0, len(contexts), CONTINUED_TOGETHER):
            batch = contexts[start : start + CONTINUED_TOGETHER]
            width = max(len(ids) for ids in batch)
            ids_BT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in batch], device=self.device)
            mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=self.device)
            answered_BT = self.model.generate(
                ids_BT, attention_mask=mask_BT, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0
            )
            for ids, answered in zip(batch, answered_BT[:, width:].tolist(), strict=True):
                end = next((i + 1 for i, token in enumerate(answered) if token in ends), len(answered))
                found.append([*ids, *answered[:end]])
        return found

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by the name in a version's file."""
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.lora is None:
            return parameters
        return {name.replace(".default.", "."): parameter for name, parameter in parameters.items()}

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained tensors by the name in a version's file, detached and not copied: those of the adapter (PEFT's
        names) or of the whole model. With several processes, only the first gets them, gathered from all shards."""
        return self._parallel.whole({name: parameter.detach() for name, parameter in self.trainable().items()})

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that a whole model's file holds; a shared tensor has one name. With several processes, only the
        first gets them."""
        entries = self.model.state_dict(keep_vars=True)
        named = {id(tensor): name for name, tensor in reversed(entries.items())}
        return self._parallel.whole({name: entries[name].detach() for name in reversed(named.values())})

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raises: ArtifactError naming missing and unknown tensors, or a tensor of another shape. On an error nothing
        has changed."""
        mine = self.trainable()
        if weights.keys() != mine.keys():
            missing, unknown = sorted(mine.keys() - weights.keys()), sorted(weights.keys() - mine.keys())
            raise ArtifactError(f"the weights lack {missing[:4]} and hold unknown {unknown[:4]}; wrong model or rank?")
        for name, tensor in weights.items():
            if tensor.shape != mine[name].shape:
                raise ArtifactError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(mine[name].shape)}")
        with torch.no_grad():
            for name, tensor in weights.items():
                mine[name].copy_(self._parallel.part(tensor, mine[name]))

    def load_base(self) -> None:
        """Return to version 0."""
        if self.lora is None:
            self.load()
        else:
            self.load_weights(self._base)

    def base_path(self) -> Path | str:
        """The absolute folder of the base model, or its hub name if it is not a folder."""
        folder = Path(self.config.path)
        return folder.resolve() if folder.is_dir() else self.config.path


def _core(model: Any) -> Any:
    """The transformers model, without the PEFT wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"
