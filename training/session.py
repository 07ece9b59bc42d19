# pyright: basic
"""The training session: takes a window and publishes a version on disk. actors.train.trainer drives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.artifacts import MANIFEST
from core.chat_template import PLAIN_TEMPLATE, render_id, rendered
from core.config import LearningConfig, ModelConfig
from core.errors import ConfigError, MismatchError, ObjectiveError, PromptError
from core.messages import BASE, Example, PolicyRef, Prompt, Published, Window
from core.objectives import Objective

if TYPE_CHECKING:  # a session is constructed without torch; only `open` needs torch
    from training.learner.learner import Learner
    from training.learner.parallel import Parallel
    from training.learner.targets import Floats, Key

PROOF_ANSWER_TOKENS = 48
MISMATCH_EXAMPLES = 64
"""Examples compared for each version that sampled."""


@dataclass
class TrainingSession:
    """All calls block. Make one call at a time."""

    run_dir: Path
    model: ModelConfig
    learning: LearningConfig
    seed: int
    objective: Objective
    proof_prompts: Sequence[Prompt]
    """The base model's greedy answers to these prompts are fixed tokens. An engine scores them to prove that it has the
    weights of a version."""
    parallel: "Parallel | None" = None
    """The processes that train together; each has its own session. None: a single process."""
    render_id: str = field(init=False)
    _learner: "Learner" = field(init=False)
    _trained: tuple[PolicyRef, dict[str, float]] | None = field(default=None, init=False)
    """A version that was trained but not written, because the disk was full, with its stats."""

    def open(self) -> Published:
        """Load the model and publish the base as version 0. Raises: ArtifactError if the run has another base model."""
        from transformers import AutoTokenizer

        from training.learner.learner import Learner
        from training.versions.publish import publish_base

        tokenizer = AutoTokenizer.from_pretrained(self.model.path)
        template = tokenizer.chat_template or PLAIN_TEMPLATE
        self.render_id = render_id(tokenizer.backend_tokenizer.to_str(), template)
        self._learner = Learner(self.model, self.learning, self.seed, self.render_id, self.objective, self.parallel)
        self._learner.load()
        return publish_base(self._learner, self.run_dir, self._proof_sequences(tokenizer, template))

    def return_to(self, parent: Published) -> None:
        from training.versions.load import load_version

        self._trained = None
        load_version(self._learner, self.run_dir, parent.ref)

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        """Train on the window and publish the result as version `ref`. `rest` is called after each step with
        the steps done and all steps; it may wait, and an error of its leaves the weights as the parent's.

        Raises: MismatchError if the log-probabilities of engine and trainer differ; nothing was trained then.
        StorageFull if the disk is full; a second call for the same `ref` only writes the version."""
        from training.versions.publish import publish

        if self._trained is None or self._trained[0] != ref:
            self._trained = None
            mismatch, reference = self._mismatch(window, parent.ref), self._reference(window, parent.ref)
            stats = {**mismatch, **self._learner.train(window, rest, lr_scale, reference)}
            self._trained = (ref, stats)
        published = publish(self._learner, ref, parent.ref, window.number, self.run_dir, self._trained[1])
        self._trained = None
        return published

    def _mismatch(self, window: Window, parent: PolicyRef) -> dict[str, float]:
        """Compares engine and trainer on sampled tokens. Each version is compared with its own weights, so samples of
        an older version are not a mismatch. The learner holds the parent's weights before and after."""
        from training.versions.load import load_version
        from training.versions.publish import version_dir

        sampled: dict[PolicyRef, list[Example]] = {}
        for example in window.examples:
            if all("behaviour" in row.columns for row in example.rows):
                sampled.setdefault(example.policy, []).append(example)
        worst, at = 0.0, parent
        for ref, examples in sampled.items():
            manifest = version_dir(self.run_dir, ref) / MANIFEST
            if self._learner.parallel.by_first(manifest.is_file):
                if ref != at:
                    load_version(self._learner, self.run_dir, ref)
                    at = ref
                worst = max(worst, self._learner.mismatch_kl(examples[:MISMATCH_EXAMPLES]))
        if at != parent:
            load_version(self._learner, self.run_dir, parent)
        if self.learning.max_mismatch_kl is not None and not worst <= self.learning.max_mismatch_kl:
            raise MismatchError(
                f"engine and trainer differ by {worst:.3g} nats a sampled token on window {window.number}, with the "
                f"same weights; learning.max_mismatch_kl allows {self.learning.max_mismatch_kl:g}. Check "
                "model.engine_dtype, model.trainer_dtype and recent changes of the engine, or raise the limit"
            )
        return {"mismatch_kl": worst} if sampled else {}

    def _reference(self, window: Window, parent: PolicyRef) -> "dict[Key, Floats] | None":
        """Log-probabilities by the version that the objective names; None if it names none.

        Raises: ObjectiveError if this run has no such version; nothing was trained then."""
        from training.versions.load import load_version
        from training.versions.publish import version_dir

        named = self.objective.named
        if named in ("", "parent", "base"):
            return None
        ref = PolicyRef.parse(named)
        manifest = version_dir(self.run_dir, ref) / MANIFEST
        if not self._learner.parallel.by_first(manifest.is_file):
            raise ObjectiveError(
                f"the objective's reference {ref} does not exist in {self.run_dir}; expected parent, base, or a "
                "version of this run: set the recipe's option"
            )
        load_version(self._learner, self.run_dir, ref)
        found = self._learner.completion_logprobs(window.examples)
        load_version(self._learner, self.run_dir, parent)
        return found

    def _proof_sequences(self, tokenizer: Any, template: str) -> list[list[int]]:
        if (self.run_dir / "versions" / f"v{BASE.version:04d}").exists():
            return []  # version 0 of this run already has its sequences
        return self._learner.trained_model.continued(self._proof_contexts(tokenizer, template), PROOF_ANSWER_TOKENS)

    def _proof_contexts(self, tokenizer: Any, template: str) -> list[list[int]]:
        """The proof prompts that the chat template accepts, as token ids. Raises: ConfigError if there is none."""
        contexts: list[list[int]] = []
        refusals: list[PromptError] = []
        for prompt in self.proof_prompts:
            try:
                contexts.append(rendered(tokenizer, template, prompt.messages))
            except PromptError as error:
                refusals.append(error)
        if refusals and not contexts:
            raise ConfigError(f"none of {len(refusals)} prompts of the pool can be asked; the first: {refusals[0]}")
        return contexts
