"""What the chat template refuses is a failure of that prompt, with the template's own words."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from core.config import EngineConfig, ModelConfig
from core.errors import ConfigError, PromptError
from core.messages import BASE, ChatMessage, Sampling
from core.objectives import Sft
from methods.data.prompts import as_prompt
from serve.engine.engine import Engine
from serve.engine.local_policy import EnginePolicy
from tests.pure.refusing_template import tokenizer_with
from training.session import TrainingSession

USER, SYSTEM = {"role": "user", "content": "How many?"}, {"role": "system", "content": "Be brief."}


def engine_with(folder: Path, **template: str) -> Engine:
    """An engine that was not started: it can render, and nothing else."""
    model = ModelConfig(path=str(tokenizer_with(folder, **template)))
    engine = Engine(model, EngineConfig(), max_versions=1, seed=0)
    engine._load_tokenizer()
    engine._limit = 512
    return engine


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ([USER, USER], r"\(user, user\): Conversation roles must alternate"),
        ([SYSTEM, USER], "System role not supported"),
    ],
)
def test_a_refused_prompt_fails_by_name_on_every_way_to_the_engine(tmp_path: Path, chat: list[Any], words: str) -> None:
    policy, prompt = EnginePolicy(engine_with(tmp_path)), as_prompt(chat)
    for asked in (
        policy.generate(prompt, Sampling(n=1, max_tokens=4), BASE),
        policy.logprobs(prompt, "4", BASE),
        policy.render(prompt, "4"),
    ):
        with pytest.raises(PromptError, match=words):
            asyncio.run(asked)


@pytest.mark.parametrize("broken", ["{{ messages[0]['content'] + 1 }}", "{{ messages[7]['content'] }}", "{% for %}"])
def test_a_template_that_fails_on_everything_is_refused_at_the_start(tmp_path: Path, broken: str) -> None:
    with pytest.raises(ConfigError, match="correct chat_template in"):
        engine_with(tmp_path, template=broken)


def test_a_template_that_fails_in_its_own_way_refuses_that_prompt_only(tmp_path: Path) -> None:
    odd = "{% for m in messages %}{{ 1 // (3 - m['content'] | length) }}{{ m['content'] }}{% endfor %}"
    engine = engine_with(tmp_path, template=odd)
    with pytest.raises(PromptError, match="division"):
        engine.render([ChatMessage(role="user", content="abc")])
    assert engine.render([ChatMessage(role="user", content="abcd")])[0]


def test_the_trainer_proves_itself_by_the_prompts_that_can_be_asked(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    engine, prompts = (
        engine_with(tmp_path),
        [as_prompt([USER, USER]), as_prompt("How many?"), as_prompt([SYSTEM, USER])],
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def contexts(asked: list[Any]) -> list[list[int]]:
        nothing: Any = None
        session = TrainingSession(tmp_path, nothing, nothing, 0, Sft(), asked)
        return session._proof_contexts(tokenizer, tokenizer.chat_template)

    assert contexts(prompts) == [engine.render(prompts[1].messages)[0]]
    with pytest.raises(ConfigError, match=r"none of 1 prompts of the pool can be asked; the first: .* must alternate"):
        contexts(prompts[:1])
