# pyright: basic
"""The training room: a window comes in, a version on disk goes out. What actors.trainer drives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import LearningConfig, ModelConfig
from core.messages import BASE, PolicyRef, Prompt, Published, Window
from core.render import PLAIN_TEMPLATE, render_id

if TYPE_CHECKING:  # a room is described where nobody needs torch, and opened where the trainer runs
    from training.step import Learner

PROOF_ANSWER_TOKENS = 48


@dataclass
class Room:
    """All calls block; one at a time."""

    run_dir: Path
    model: ModelConfig
    learning: LearningConfig
    seed: int
    objective: str
    proof_prompts: Sequence[Prompt]
    """The base's greedy answers to these are the fixed tokens by which an engine proves that a version arrived."""
    render_id: str = field(init=False)
    _learner: "Learner" = field(init=False)

    def open(self) -> Published:
        """Load the model; returns the base, described on disk. Raises: ArtifactError for a run of another base."""
        from transformers import AutoTokenizer

        from training.publish import publish_base
        from training.step import Learner

        tokenizer = AutoTokenizer.from_pretrained(self.model.path)
        template = tokenizer.chat_template or PLAIN_TEMPLATE
        self.render_id = render_id(tokenizer.backend_tokenizer.to_str(), template)
        self._learner = Learner(self.model, self.learning, self.seed, self.render_id, self.objective)
        self._learner.load()
        return publish_base(self._learner, self.run_dir, self._proof_sequences(tokenizer, template))

    def return_to(self, parent: Published) -> None:
        from training.checkpoint import load_version

        load_version(self._learner, self.run_dir, parent.ref)

    def make(self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[], None]) -> Published:
        from training.publish import publish

        stats = self._learner.train(window, rest)
        return publish(self._learner, ref, parent.ref, window.number, self.run_dir, stats)

    def _proof_sequences(self, tokenizer: Any, template: str) -> list[list[int]]:
        if (self.run_dir / "versions" / f"v{BASE.version:04d}").exists():
            return []  # fixed when the run began
        import torch

        sequences: list[list[int]] = []
        for prompt in self.proof_prompts:
            chat = [{"role": message.role, "content": message.content} for message in prompt.messages]
            ids = tokenizer.apply_chat_template(
                chat, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            with torch.inference_mode():
                answered = self._learner.model.generate(
                    torch.tensor([ids], device=self._learner.device),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=self._learner.device),
                    max_new_tokens=PROOF_ANSWER_TOKENS,
                    do_sample=False,
                )
            sequences.append(answered[0].tolist())
        return sequences
