# pyright: basic
"""The learner: one model, trained on one window at a time. transformers and peft on whatever devices there are."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import MethodType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from core.config import LearningConfig, Lora, ModelConfig
from core.errors import ArtifactError, ObjectiveError, RatchetError
from core.messages import Reinforce, Window
from training.learner.collate import Continued, collate, length, pack_batches
from training.learner.logits import logits_at
from training.learner.parallel import Parallel, SingleProcess
from training.objectives import Column, objective


class Diverged(RatchetError, ArithmeticError):
    """A loss or gradient that is no number; the weights are as they were before the window."""


class Learner:
    """Keeps the weights between windows and nothing else: the optimiser is fresh each window, as measured, so weights
    and the window's number are the whole state. `render_id`: examples rendered otherwise are refused; None: no check.
    `parallel`: the processes that learn this model together; None: only this one.
    """

    def __init__(
        self,
        model: ModelConfig,
        learning: LearningConfig,
        seed: int = 0,
        render_id: str | None = None,
        objective_name: str = "sft",
        parallel: Parallel | None = None,
    ) -> None:
        self.model_config = model
        self.learning = learning
        self.seed = seed
        self.render_id = render_id
        self.objective = objective(objective_name)
        self.terms = self.objective.terms(learning)
        self.device = torch.device(_device(learning.device))
        self.parallel: Parallel = parallel or SingleProcess()
        self.losses: list[float] = []
        """Of every step of the newest window (mean nats a token)."""
        self._model: Any = None
        self._base: dict[str, torch.Tensor] = {}
        self._frozen_base: Any = None
        self._columns: dict[str, dict[Column, npt.NDArray[np.float32]]] = {}

    @property
    def lora(self) -> Lora | None:
        return self.model_config.weights if isinstance(self.model_config.weights, Lora) else None

    @property
    def model(self) -> Any:
        """The model that transformers or peft knows how to save. Raises: RuntimeError before `load`."""
        if self._model is None:
            raise RuntimeError("the learner has no model yet; call load() first")
        return self._model

    def load(self) -> None:
        """Read the base model; with LoRA, put adapters on it that change nothing yet. Heavy. Sets this process's
        number of torch threads. Raises: ArtifactError when there is no such model."""
        torch.set_num_threads(self.learning.threads)
        disable_progress_bar()
        with torch.random.fork_rng(devices=[]):
            model = self._read()
            if self.lora is not None:
                model = self._adapted(model, self.lora)
        self._model = self._placed(model)
        if self.lora is not None:
            self._base = {name: parameter.detach().clone() for name, parameter in self._trainable().items()}

    def _placed(self, model: Any) -> Any:
        # Dropout, where a model has any, stays off: the engine that sampled had none.
        core = _core(model.eval())
        core.logits_at = MethodType(logits_at, core)
        self.parallel.place(core, self.device)
        return model

    def _read(self) -> Any:
        """The base model, as it is on disk."""
        dtype = getattr(torch, self.model_config.trainer_dtype)
        try:
            return AutoModelForCausalLM.from_pretrained(self.model_config.path, dtype=dtype, attn_implementation="sdpa")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"model.path={self.model_config.path!r} cannot be loaded: {error}") from None

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
        generator = torch.Generator().manual_seed(self.seed)
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(parameter.data, a=math.sqrt(5), generator=generator)
        return adapted

    # --- learning ---

    def train(
        self, window: Window, should_yield: Callable[[], None] | None = None, lr_scale: float = 1.0
    ) -> dict[str, float]:
        """One window: fresh AdamW, warm-up then linear to 0, clipped gradients. Deterministic from seed and window.

        `should_yield` is called between steps and may wait; learning.lr is multiplied by `lr_scale`, which is below 1
        after rejections in a row and returned too. Returns loss (mean nats a token, over the window), steps,
        examples, tokens, target_tokens, seconds, cpu_s, grad_norm (mean, before clipping); and off_policy_kl (nats a
        token), how far these weights are from those that sampled, when the objective asks for both.
        Raises: ObjectiveError for examples it cannot eat; Diverged."""
        started, started_cpu = time.monotonic(), time.process_time()
        examples = self._weighed(self._eaten(window))
        self._columns = self._look_up(examples)
        off_policy = self._off_policy()
        rng = Random(f"{self.seed}:{window.number}")
        batches = [
            batch
            for _ in range(self.learning.epochs)
            for batch in pack_batches(examples, self.learning.batch_tokens, rng)
        ]
        parameters = list(self._trainable().values())
        before = [parameter.detach().clone() for parameter in parameters]
        optimiser = self._optimiser(parameters)
        losses, norms = self.losses, [0.0]
        losses.clear()
        try:
            for step, batch in enumerate(batches):
                optimiser.param_groups[0]["lr"] = lr_scale * self.rate(step, len(batches))
                loss, norm = self._step(batch, parameters, optimiser)
                losses.append(loss)
                norms.append(norm)
                if should_yield is not None:
                    should_yield()
        except BaseException:
            with torch.no_grad():
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
            raise
        finally:
            optimiser.zero_grad(set_to_none=True)
            self._columns = {}
        steps = max(1, len(batches))
        return {
            "loss": sum(losses) / steps,
            "grad_norm": sum(norms) / steps,
            **off_policy,
            "steps": float(len(batches)),
            "examples": float(len(examples)),
            "tokens": float(sum(length(example) for example in examples) * self.learning.epochs),
            "target_tokens": float(sum(len(e.completion_ids) // 4 for e in examples) * self.learning.epochs),
            "lr_scale": lr_scale,
            "seconds": time.monotonic() - started,
            "cpu_s": self.parallel.total(time.process_time() - started_cpu),
        }

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of `steps` steps, from 0: up over the warm-up, and linearly down to 0 all the while."""
        warmup = min(1.0, (step + 1) / (self.learning.warmup_ratio * steps + 1))
        return self.learning.lr * warmup * (1 - step / steps)

    def _step(
        self, batch: list[Continued], parameters: list[torch.nn.Parameter], optimiser: torch.optim.Optimizer
    ) -> tuple[float, float]:
        total = sum(example.weight * (len(example.completion_ids) // 4) for example in batch)
        if total == 0:
            return 0.0, 0.0
        optimiser.zero_grad(set_to_none=True)
        loss = 0.0
        for micro in self.parallel.turns(batch, self.learning.micro_batch_tokens):
            part = self.loss(micro) / total
            loss += part.item()
            self.parallel.backward(part)
        loss = self.parallel.total(loss)
        norm = self.parallel.clip(parameters, self.learning.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"loss {loss}, gradient norm {norm} (learning.lr {self.learning.lr}); the weights are as they were "
                "before the window; lower learning.lr or check the examples"
            )
        optimiser.step()
        return loss, norm

    def loss(self, batch: Sequence[Continued]) -> torch.Tensor:
        """The objective's weighted sum over the completion tokens of a batch (nats), with gradients."""
        ids_BT, mask_BT, weight_B = (tensor.to(self.device) for tensor in collate(batch))
        predicts_BT = mask_BT[:, 1:]
        logits_NV = self._logits_at(ids_BT[:, :-1], predicts_BT)
        weight_N = weight_B[:, None].expand_as(predicts_BT)[predicts_BT]
        columns = {name: self._column(name, batch) for name in self.terms.columns}
        targets_N = ids_BT[:, 1:][predicts_BT]
        return self.objective.function(logits_NV, targets_N, weight_N, **columns, **self.terms.arguments)

    # --- what an objective knows of each token ---

    def mismatch_kl(self, examples: Sequence[Reinforce]) -> float:
        """How far this trainer, with the weights it has now, is from the engine that sampled (nats a token)."""
        own = self.completion_logprobs(examples)
        return _divergence([_floats(e.logprobs) for e in examples], [own[e.id] for e in examples])

    @torch.no_grad()
    def completion_logprobs(self, examples: Sequence[Continued]) -> dict[str, npt.NDArray[np.float32]]:
        """Example id -> log-probability of every completion token (float32[T], nats) with the weights as they are."""
        found: dict[str, npt.NDArray[np.float32]] = {}
        for batch in self.parallel.turns(examples, self.learning.micro_batch_tokens or self.learning.batch_tokens):
            ids_BT, mask_BT, _ = (tensor.to(self.device) for tensor in collate(batch))
            predicts_BT = mask_BT[:, 1:]
            logprobs_NV = torch.log_softmax(self._logits_at(ids_BT[:, :-1], predicts_BT).float(), dim=-1)
            logprobs_N = logprobs_NV.gather(-1, ids_BT[:, 1:][predicts_BT][:, None])[:, 0].cpu().numpy()
            ends = np.cumsum([len(example.completion_ids) // 4 for example in batch])
            parts = np.split(logprobs_N, ends[:-1])
            found |= {example.id: part for example, part in zip(batch, parts, strict=True)}
        return self.parallel.merged(found)

    def _look_up(self, examples: Sequence[Continued]) -> dict[str, dict[Column, npt.NDArray[np.float32]]]:
        """Before the first step: example id -> the columns that the objective wants."""
        found: dict[str, dict[Column, npt.NDArray[np.float32]]] = {example.id: {} for example in examples}
        for example in examples:
            if isinstance(example, Reinforce):
                behaviour = _floats(example.logprobs)
                found[example.id] |= {"behaviour": behaviour, "advantage": np.full_like(behaviour, example.advantage)}
        if "proximal" in self.terms.columns:
            for name, logprobs in self.completion_logprobs(examples).items():
                found[name]["proximal"] = logprobs
        if "reference" in self.terms.columns:
            with self._as_base():
                for name, logprobs in self.completion_logprobs(examples).items():
                    found[name]["reference"] = logprobs
        return found

    def _column(self, name: Column, batch: Sequence[Continued]) -> torch.Tensor:
        """float32[N], in the order of the logits."""
        return torch.from_numpy(np.concatenate([self._columns[e.id][name] for e in batch])).to(self.device)

    def _off_policy(self) -> dict[str, float]:
        if not {"behaviour", "proximal"} <= set(self.terms.columns):
            return {}
        known = self._columns.values()
        return {"off_policy_kl": _divergence([c["behaviour"] for c in known], [c["proximal"] for c in known])}

    @contextmanager
    def _as_base(self) -> Iterator[None]:
        """Inside, the model is the base: adapters off, or a frozen copy that is read when first needed."""
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

    @torch.no_grad()
    def score(self, sequences: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """Log-probabilities of tokens 1..T-1 of each sequence (float32[T-1], nats), at temperature 1."""
        scores: list[npt.NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(sequences)
        order = sorted((i for i, s in enumerate(sequences) if len(s) > 1), key=lambda i: len(sequences[i]))
        while order:
            rows = max(1, self.learning.batch_tokens // len(sequences[order[-1]]))
            batch, order = order[-rows:], order[:-rows]
            ids_BT = torch.zeros(len(batch), len(sequences[batch[-1]]), dtype=torch.long)
            keep_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
            for row, i in enumerate(batch):
                ids_BT[row, : len(sequences[i])] = torch.tensor(list(sequences[i]))
                keep_BT[row, 1 : len(sequences[i])] = True
            ids_BT, keep_BT = ids_BT.to(self.device), keep_BT.to(self.device)[:, 1:]
            logits_NV = self._logits_at(ids_BT[:, :-1], keep_BT).float()
            logprobs_NV = torch.log_softmax(logits_NV, dim=-1)
            logprobs_N = logprobs_NV.gather(-1, ids_BT[:, 1:][keep_BT][:, None])[:, 0].cpu().numpy()
            ends = np.cumsum([len(sequences[i]) - 1 for i in batch])
            for i, part in zip(batch, np.split(logprobs_N, ends[:-1]), strict=True):
                scores[i] = part
        return scores

    def _logits_at(self, ids_BT: torch.Tensor, keep_BT: torch.Tensor) -> torch.Tensor:
        return _core(self.model).logits_at(ids_BT, keep_BT)

    def _optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        cfg = self.learning
        return torch.optim.AdamW(
            parameters, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), weight_decay=cfg.weight_decay, fused=True
        )

    def _weighed(self, examples: list[Continued]) -> list[Continued]:
        """Where a step's loss is the mean over completions, each token weighs less the longer its completion is."""
        if self.terms.mean == "token":
            return examples
        tokens = [max(1, len(example.completion_ids) // 4) for example in examples]
        return [e.model_copy(update={"weight": e.weight / n}) for e, n in zip(examples, tokens, strict=True)]

    def _eaten(self, window: Window) -> list[Continued]:
        for example in window.examples:
            if not isinstance(example, self.objective.eats):
                raise ObjectiveError(
                    f"window {window.number} holds a {type(example).__name__} ({example.id}); objective "
                    f"{self.objective.name!r} eats {self.objective.eats.__name__}"
                )
            if self.render_id is not None and example.render_id != self.render_id:
                raise ObjectiveError(
                    f"example {example.id} was rendered as {example.render_id!r}, this trainer renders as "
                    f"{self.render_id!r}: its tokenizer or chat template differs; train with the one that sampled"
                )
            if isinstance(example, Reinforce) and len(example.logprobs) != len(example.completion_ids):
                raise ObjectiveError(
                    f"example {example.id} has {len(example.completion_ids) // 4} tokens and "
                    f"{len(example.logprobs) // 4} log-probabilities; it needs one of the engine's for each"
                )
        return [*window.imitate, *window.reinforce]

    # --- weights ---

    def weights(self) -> dict[str, torch.Tensor]:
        """What a version consists of, by the name in its file, detached and not copied: the adapter's tensors (PEFT's
        names), or all of the model's. Of several processes only the first has them, put together from all parts."""
        return self.parallel.whole({name: parameter.detach() for name, parameter in self._trainable().items()})

    def state(self) -> dict[str, torch.Tensor]:
        """All that a whole model's file holds, each tensor under one name; of several processes only for the first."""
        entries = self.model.state_dict(keep_vars=True)
        named = {id(tensor): name for name, tensor in reversed(entries.items())}
        return self.parallel.whole({name: entries[name].detach() for name in reversed(named.values())})

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raises: ArtifactError naming missing and unknown tensors, or one of another shape; then nothing changed."""
        mine = self._trainable()
        if weights.keys() != mine.keys():
            missing, unknown = sorted(mine.keys() - weights.keys()), sorted(weights.keys() - mine.keys())
            raise ArtifactError(f"the weights lack {missing[:4]} and hold unknown {unknown[:4]}; wrong model or rank?")
        for name, tensor in weights.items():
            if tensor.shape != mine[name].shape:
                raise ArtifactError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(mine[name].shape)}")
        with torch.no_grad():
            for name, tensor in weights.items():
                mine[name].copy_(self.parallel.part(tensor, mine[name]))

    def load_base(self) -> None:
        """Back to version 0."""
        if self.lora is None:
            self.load()
        else:
            self.load_weights(self._base)

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.lora is None:
            return parameters
        return {name.replace(".default.", "."): parameter for name, parameter in parameters.items()}

    def base_path(self) -> Path | str:
        """The base model's folder, absolute, or its hub name where it is none."""
        folder = Path(self.model_config.path)
        return folder.resolve() if folder.is_dir() else self.model_config.path


def _core(model: Any) -> Any:
    """transformers' model, with or without adapters put into it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _floats(packed: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(packed, dtype="<f4")


def _divergence(sampled: Sequence[npt.NDArray[np.float32]], other: Sequence[npt.NDArray[np.float32]]) -> float:
    """KL(sampled || other) in nats a token, estimated on the tokens that were sampled (K3: never below 0)."""
    less = np.concatenate([b - a for a, b in zip(sampled, other, strict=True)] or [np.zeros(0)]).astype(np.float64)
    return float(np.mean(np.expm1(less) - less)) if less.size else 0.0


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"
