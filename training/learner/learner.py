# pyright: basic
"""The learner: trains one model on one window at a time, with transformers and PEFT, on a CPU or on GPUs."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.config import LearningConfig, ModelConfig
from core.errors import ObjectiveError, RatchetError
from core.messages import Example, Window
from core.objectives import Objective, Sft
from training.learner.collate import Collated, Turn, collate, computed, pack_batches, per_target
from training.learner.model import LearnerModel
from training.learner.parallel import Parallel, SingleProcess
from training.learner.targets import Floats, Key, tokens_of
from training.objectives import loss_of


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
        objective: Objective | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.learning = learning
        self.seed = seed
        self.render_id = render_id
        self.objective = objective or Sft()
        self.parallel: Parallel = parallel or SingleProcess()
        self.trained_model = LearnerModel(model, learning, seed, self.parallel)
        self.losses: list[float] = []
        """Loss of every step of the newest window (mean nats a token)."""
        self._columns: dict[Key, dict[str, Floats]] = {}
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
        self,
        window: Window,
        should_yield: Callable[[int, int], None] | None = None,
        lr_scale: float = 1.0,
        reference: Mapping[Key, Floats] | None = None,
    ) -> dict[str, float]:
        """Train on one window with a new AdamW, warm-up, linear decay to 0 and clipped gradients. The seed and the
        window determine the result.

        `should_yield` is called after each step with the steps done and all steps. It may wait, and an error of its
        leaves the weights as they were before the window. `lr_scale` multiplies learning.lr; it is below 1 after
        consecutive rejections. `reference`: `completion_logprobs` by the version that the objective names. Returns loss
        (mean nats a token, over the window), grad_norm (mean, before clipping), steps, examples, tokens,
        computed_tokens (by the steps' forwards: with padding, and what rows share once), target_tokens, lr_scale,
        seconds and cpu_s. If the objective uses both behaviour and proximal log-probabilities, also off_policy_kl (nats
        a token): the distance of these weights from the weights that sampled. Of pairs, also chosen_tokens and
        rejected_tokens, their mean lengths, because losses that sum over tokens pull on length.
        Raises: ObjectiveError for examples that the objective does not take; Diverged."""
        started, started_cpu = time.monotonic(), time.process_time()
        examples = self._taken(window)
        self._columns = self._look_up(examples, reference)
        extra = self._off_policy() | _lengths(examples)
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
            **extra,
            "steps": float(len(batches)),
            "examples": float(len(examples)),
            "tokens": float(sum(len(row.token_ids) // 4 for e in examples for row in e.rows) * self.learning.epochs),
            "computed_tokens": self.parallel.total(float(self._computed)),
            "target_tokens": float(sum(row.targets for e in examples for row in e.rows) * self.learning.epochs),
            "lr_scale": lr_scale,
            "seconds": time.monotonic() - started,
            "cpu_s": self.parallel.total(time.process_time() - started_cpu),
        }

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`: a linear decay to 0, multiplied by the warm-up."""
        warmup = min(1.0, (step + 1) / (self.learning.warmup_ratio * steps + 1))
        return self.learning.lr * warmup * (1 - step / steps)

    def _step(
        self, batch: list[Example], parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[float, float]:
        total = sum(example.weight * self._units(example) for example in batch)
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

    def _units(self, example: Example) -> float:
        """What the example counts in the mean of a step, before its weight."""
        match self.objective.unit:
            case "token":
                return sum(float(per_target(row, "weight").sum()) for row in example.rows)
            case "sequence":
                return len(example.rows)
            case _:
                return 1

    def _turns(self, batch: Sequence[Example], tokens: int | None) -> list[Turn]:
        return self.parallel.turns(batch, tokens, self.trained_model.share_tokens)

    def loss(self, turn: Turn) -> torch.Tensor:
        """The objective's weighted sum over one forward, with gradients."""
        held = collate(turn).to(self.device)
        logits_NV = held.predicting(self.trained_model.logits(held))
        tokens = tokens_of(turn, held, logits_NV, self._columns, self.objective.unit, lambda: self._base_logits(held))
        return loss_of(self.objective)(tokens, self.objective)

    @torch.no_grad()
    def _base_logits(self, held: Collated) -> torch.Tensor:
        with self.trained_model.as_base():
            return held.predicting(self.trained_model.logits(held))

    # --- log-probabilities and columns ---

    def mismatch_kl(self, examples: Sequence[Example]) -> float:
        """KL estimate between the engine that sampled and this trainer with its current weights (nats a token)."""
        own = self.completion_logprobs(examples)
        sampled = {
            (e.id, place): _floats(row.columns["behaviour"]) for e in examples for place, row in enumerate(e.rows)
        }
        return _divergence(list(sampled.values()), [own[key] for key in sampled])

    @torch.no_grad()
    def completion_logprobs(self, examples: Sequence[Example]) -> dict[Key, Floats]:
        """Example's id and row -> log-probability of every target (float32[T], nats) with the current weights."""
        found: dict[Key, Floats] = {}
        for turn in self._turns(examples, self.learning.micro_batch_tokens or self.learning.batch_tokens):
            held = collate(turn).to(self.device)
            logprobs_NV = held.predicting(torch.log_softmax(self.trained_model.logits(held).float(), dim=-1))
            logprobs_N = logprobs_NV.gather(-1, held.targets_N[:, None])[:, 0].cpu().numpy()
            parts = np.split(logprobs_N, np.cumsum(held.counts)[:-1])
            found |= {piece.key: part for piece, part in zip((p for line in turn for p in line), parts, strict=True)}
        return self.parallel.merged(found)

    def _look_up(
        self, examples: Sequence[Example], reference: Mapping[Key, Floats] | None
    ) -> dict[Key, dict[str, Floats]]:
        """The columns of each row. Call it before the first step."""
        found = {
            (example.id, place): {name: _floats(column) for name, column in row.columns.items()}
            for example in examples
            for place, row in enumerate(example.rows)
        }
        named, needs = self.objective.named, self.objective.needs
        if "proximal" in needs or ("reference" in needs and named == "parent"):
            name = "proximal" if "proximal" in needs else "reference"
            for key, logprobs in self.completion_logprobs(examples).items():
                found[key][name] = logprobs
        if "reference" in needs and named != "parent":
            if reference is None:
                with self.trained_model.as_base():
                    reference = self.completion_logprobs(examples)
            for key in found:
                found[key]["reference"] = reference[key]
        return found

    def _off_policy(self) -> dict[str, float]:
        known = [c for c in self._columns.values() if "behaviour" in c and "proximal" in c]
        if not known:
            return {}
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

    def _taken(self, window: Window) -> list[Example]:
        objective = self.objective
        for example in window.examples:
            if len(example.rows) != objective.rows:
                raise ObjectiveError(
                    f"window {window.number} holds an example of {len(example.rows)} row(s) ({example.id}); objective "
                    f"{objective.kind!r} takes {objective.rows}; check method.recipe"
                )
            if self.render_id is not None and example.render_id != self.render_id:
                raise ObjectiveError(
                    f"example {example.id} was rendered as {example.render_id!r}, but this trainer renders as "
                    f"{self.render_id!r}: the tokenizer or chat template differs; train with the one that sampled"
                )
            for name in objective.given:
                if any(name not in row.columns for row in example.rows):
                    raise ObjectiveError(
                        f"example {example.id} has no column {name!r}, which objective {objective.kind!r} needs; "
                        "sample with Sampling.logprobs=True"
                    )
        return list(window.examples)


def _floats(packed: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(packed, dtype="<f4")


def _divergence(sampled: Sequence[npt.NDArray[np.float32]], other: Sequence[npt.NDArray[np.float32]]) -> float:
    """KL(sampled || other) in nats a token, estimated on the sampled tokens (K3 estimator, never below 0)."""
    less = np.concatenate([b - a for a, b in zip(sampled, other, strict=True)] or [np.zeros(0)]).astype(np.float64)
    return float(np.mean(np.expm1(less) - less)) if less.size else 0.0


def _lengths(examples: Sequence[Example]) -> dict[str, float]:
    pairs = [example.rows for example in examples if len(example.rows) == 2]
    if not pairs:
        return {}
    names = ("chosen_tokens", "rejected_tokens")
    return {name: sum(pair[place].targets for pair in pairs) / len(pairs) for place, name in enumerate(names)}
