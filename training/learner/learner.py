# pyright: basic
"""The learner: trains one model on one window at a time, with transformers and PEFT, on a CPU or on GPUs."""

import math
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.config import LearningConfig, ModelConfig
from core.errors import ObjectiveError, RatchetError
from core.messages import Reinforce, Window
from training.learner.collate import Continued, Turn, collate, computed, length, pack_batches
from training.learner.model import LearnerModel
from training.learner.parallel import Parallel, SingleProcess
from training.objectives import Column, objective


class Diverged(RatchetError, ArithmeticError):
    """A loss or gradient is not finite. The weights are as they were before the window."""


class Learner:
    """Keeps only the weights between windows. Each window starts with a new optimizer, as in the measured recipe, so
    the weights and the window number are the whole state.

    `render_id`: examples with another render id are refused; None: no check. `parallel`: the processes that train this
    model together; None: a single process.
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
        self.learning = learning
        self.seed = seed
        self.render_id = render_id
        self.objective = objective(objective_name)
        self.terms = self.objective.terms(learning)
        self.parallel: Parallel = parallel or SingleProcess()
        self.trained_model = LearnerModel(model, learning, seed, self.parallel)
        self.losses: list[float] = []
        """Loss of every step of the newest window (mean nats a token)."""
        self._columns: dict[str, dict[Column, npt.NDArray[np.float32]]] = {}
        self._computed = 0

    @property
    def device(self) -> torch.device:
        return self.trained_model.device

    @property
    def model(self) -> Any:
        """The transformers or PEFT model. Raises: RuntimeError before `load`."""
        return self.trained_model.model

    def load(self) -> None:
        """See LearnerModel.load."""
        self.trained_model.load()

    def weights(self) -> dict[str, torch.Tensor]:
        """See LearnerModel.weights."""
        return self.trained_model.weights()

    # --- learning ---

    def train(
        self, window: Window, should_yield: Callable[[int, int], None] | None = None, lr_scale: float = 1.0
    ) -> dict[str, float]:
        """Train on one window with a new AdamW, warm-up, linear decay to 0 and clipped gradients. The seed and the
        window determine the result.

        `should_yield` is called after each step with the steps done and all steps. It may wait, and an error of its
        leaves the weights as they were before the window. `lr_scale` multiplies learning.lr; it is below 1 after
        consecutive rejections. Returns loss (mean nats a token, over the window), grad_norm (mean, before clipping),
        steps, examples, tokens, computed_tokens (by the steps' forwards: with padding, and what examples share once),
        target_tokens, lr_scale, seconds and cpu_s. If the objective uses both behaviour and proximal log-probabilities,
        also returns off_policy_kl (nats a token): the distance of these weights from the weights that sampled.
        Raises: ObjectiveError for examples that the objective does not take; Diverged."""
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
        parameters = list(self.trained_model.trainable().values())
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer = self._optimizer(parameters)
        losses, norms = self.losses, [0.0]
        losses.clear()
        self._computed = 0
        try:
            for step, batch in enumerate(batches):
                optimizer.param_groups[0]["lr"] = lr_scale * self.rate(step, len(batches))
                loss, norm = self._step(batch, parameters, optimizer)
                losses.append(loss)
                norms.append(norm)
                if should_yield is not None:
                    should_yield(step + 1, len(batches))
        except BaseException:
            with torch.no_grad():
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
            raise
        finally:
            optimizer.zero_grad(set_to_none=True)
            self._columns = {}
        steps = max(1, len(batches))
        return {
            "loss": sum(losses) / steps,
            "grad_norm": sum(norms) / steps,
            **off_policy,
            "steps": float(len(batches)),
            "examples": float(len(examples)),
            "tokens": float(sum(length(example) for example in examples) * self.learning.epochs),
            "computed_tokens": self.parallel.total(float(self._computed)),
            "target_tokens": float(sum(len(e.completion_ids) // 4 for e in examples) * self.learning.epochs),
            "lr_scale": lr_scale,
            "seconds": time.monotonic() - started,
            "cpu_s": self.parallel.total(time.process_time() - started_cpu),
        }

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`: a linear decay to 0, multiplied by the warm-up."""
        warmup = min(1.0, (step + 1) / (self.learning.warmup_ratio * steps + 1))
        return self.learning.lr * warmup * (1 - step / steps)

    def _step(
        self, batch: list[Continued], parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[float, float]:
        total = sum(example.weight * (len(example.completion_ids) // 4) for example in batch)
        if total == 0:
            return 0.0, 0.0
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for turn in self._turns(batch, self.learning.micro_batch_tokens):
            self._computed += computed(turn)
            part = self.loss(turn) / total
            loss += part.item()
            self.parallel.backward(part)
        loss = self.parallel.total(loss)
        norm = self.parallel.clip(parameters, self.learning.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"loss {loss}, gradient norm {norm}, expected finite values (learning.lr {self.learning.lr}); "
                "the weights are as they were before the window; lower learning.lr or check the examples"
            )
        optimizer.step()
        return loss, norm

    def _turns(self, batch: Sequence[Continued], tokens: int | None) -> list[Turn]:
        return self.parallel.turns(batch, tokens, self.trained_model.share_tokens)

    def loss(self, turn: Turn) -> torch.Tensor:
        """The objective's weighted sum over the completion tokens of one forward (nats), with gradients."""
        rows = collate(turn).to(self.device)
        logits_NV = rows.predicting(self.trained_model.logits(rows))
        columns = {name: self._column(name, turn) for name in self.terms.columns}
        return self.objective.function(logits_NV, rows.targets_N, rows.weight_N, **columns, **self.terms.arguments)

    # --- log-probabilities and columns ---

    def mismatch_kl(self, examples: Sequence[Reinforce]) -> float:
        """KL estimate between the engine that sampled and this trainer with its current weights (nats a token)."""
        own = self.completion_logprobs(examples)
        return _divergence([_floats(e.logprobs) for e in examples], [own[e.id] for e in examples])

    @torch.no_grad()
    def completion_logprobs(self, examples: Sequence[Continued]) -> dict[str, npt.NDArray[np.float32]]:
        """Example id -> log-probability of every completion token (float32[T], nats) with the current weights."""
        found: dict[str, npt.NDArray[np.float32]] = {}
        for turn in self._turns(examples, self.learning.micro_batch_tokens or self.learning.batch_tokens):
            rows = collate(turn).to(self.device)
            logprobs_NV = rows.predicting(torch.log_softmax(self.trained_model.logits(rows).float(), dim=-1))
            logprobs_N = logprobs_NV.gather(-1, rows.targets_N[:, None])[:, 0].cpu().numpy()
            batch = [example for row in turn for example in row]
            ends = np.cumsum([len(example.completion_ids) // 4 for example in batch])
            parts = np.split(logprobs_N, ends[:-1])
            found |= {example.id: part for example, part in zip(batch, parts, strict=True)}
        return self.parallel.merged(found)

    def _look_up(self, examples: Sequence[Continued]) -> dict[str, dict[Column, npt.NDArray[np.float32]]]:
        """Example id -> the columns that the objective needs. Call it before the first step."""
        found: dict[str, dict[Column, npt.NDArray[np.float32]]] = {example.id: {} for example in examples}
        for example in examples:
            if isinstance(example, Reinforce):
                behaviour = _floats(example.logprobs)
                found[example.id] |= {"behaviour": behaviour, "advantage": np.full_like(behaviour, example.advantage)}
        if "proximal" in self.terms.columns:
            for name, logprobs in self.completion_logprobs(examples).items():
                found[name]["proximal"] = logprobs
        if "reference" in self.terms.columns:
            with self.trained_model.as_base():
                for name, logprobs in self.completion_logprobs(examples).items():
                    found[name]["reference"] = logprobs
        return found

    def _column(self, name: Column, turn: Turn) -> torch.Tensor:
        """The column as float32[N], in the order of the logits."""
        known = [self._columns[example.id][name] for row in turn for example in row]
        return torch.from_numpy(np.concatenate(known)).to(self.device)

    def _off_policy(self) -> dict[str, float]:
        if not {"behaviour", "proximal"} <= set(self.terms.columns):
            return {}
        known = self._columns.values()
        return {"off_policy_kl": _divergence([c["behaviour"] for c in known], [c["proximal"] for c in known])}

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
            logits_NV = self.trained_model.logits_at(ids_BT[:, :-1], keep_BT).float()
            logprobs_NV = torch.log_softmax(logits_NV, dim=-1)
            logprobs_N = logprobs_NV.gather(-1, ids_BT[:, 1:][keep_BT][:, None])[:, 0].cpu().numpy()
            ends = np.cumsum([len(sequences[i]) - 1 for i in batch])
            for i, part in zip(batch, np.split(logprobs_N, ends[:-1]), strict=True):
                scores[i] = part
        return scores

    def _optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        cfg = self.learning
        return torch.optim.AdamW(
            parameters, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), weight_decay=cfg.weight_decay, fused=True
        )

    def _weighed(self, examples: list[Continued]) -> list[Continued]:
        """With `mean` = "sequence", divides each example's weight by the length of its completion."""
        if self.terms.mean == "token":
            return examples
        tokens = [max(1, len(example.completion_ids) // 4) for example in examples]
        return [e.model_copy(update={"weight": e.weight / n}) for e, n in zip(examples, tokens, strict=True)]

    def _eaten(self, window: Window) -> list[Continued]:
        for example in window.examples:
            if not isinstance(example, self.objective.eats):
                raise ObjectiveError(
                    f"window {window.number} holds a {type(example).__name__} ({example.id}); objective "
                    f"{self.objective.name!r} takes only "
                    f"{self.objective.eats.__name__}; check method.objective"
                )
            if self.render_id is not None and example.render_id != self.render_id:
                raise ObjectiveError(
                    f"example {example.id} was rendered as {example.render_id!r}, but this trainer renders as "
                    f"{self.render_id!r}: the tokenizer or chat template differs; train with the one that sampled"
                )
            if isinstance(example, Reinforce) and len(example.logprobs) != len(example.completion_ids):
                raise ObjectiveError(
                    f"example {example.id} has {len(example.completion_ids) // 4} tokens and "
                    f"{len(example.logprobs) // 4} log-probabilities; expected one from the engine for each token"
                )
        return [*window.imitate, *window.reinforce]


def _floats(packed: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(packed, dtype="<f4")


def _divergence(sampled: Sequence[npt.NDArray[np.float32]], other: Sequence[npt.NDArray[np.float32]]) -> float:
    """KL(sampled || other) in nats a token, estimated on the sampled tokens (K3 estimator, never below 0)."""
    less = np.concatenate([b - a for a, b in zip(sampled, other, strict=True)] or [np.zeros(0)]).astype(np.float64)
    return float(np.mean(np.expm1(less) - less)) if less.size else 0.0
