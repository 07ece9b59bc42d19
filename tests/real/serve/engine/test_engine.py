"""The engine with the real vLLM on a CPU, compared with transformers and PEFT. One engine runs at a time.

The shipped model has tied embeddings, a case in which a hot reload can fail silently.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.codec import unpack_floats, unpack_ids
from core.config import EngineConfig, Full, Lora, ModelConfig
from core.errors import ArtifactError, ConfigError, PromptError, Unavailable, VersionError
from core.messages import BASE, Candidate, ChatMessage, PolicyRef, Published, Sampling
from methods.data.prompts import as_prompt
from methods.turns import going_on, then
from serve.engine.engine import Engine
from serve.engine.openai_app import ALLOWED
from serve.http.response_tap import DONE, ROLE, USAGE

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

MODEL = Path(__file__).parents[4] / "models/word-problems/model"
LIMIT = 256
V1, V2, V3, V4 = (PolicyRef(version=n) for n in (1, 2, 3, 4))
GREEDY = Sampling(temperature=0, max_tokens=80)
QUESTIONS = [
    [ChatMessage(role="user", content=f"Tom has {n} plums. Dina has 4 times as many plums as Tom. She sells {n} plums. "
     "How many plums does Dina have?")]
    for n in range(2, 42)
]  # fmt: skip

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


def published(ref: PolicyRef, path: Path) -> Published:
    return Published(ref=ref, path=str(path), parent=BASE, window=1, fingerprint=str(path))


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def logprobs_of(model: Any, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    table = (logits_of(model, ids) / temperature).log_softmax(-1)
    return table[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def gap(engine: list[float], model: Any, ids: list[int]) -> float:
    return (torch.tensor(engine) - logprobs_of(model, ids)).abs().max().item()


@pytest.fixture(scope="module")
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


class Live:
    """Holds the one running engine. A request for another kind stops it."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._kind = ""
        self._engine: Engine | None = None

    def get(self, kind: str) -> Engine:
        if kind != self._kind:
            self.stop()
            weights = Lora() if kind == "lora" else Full()
            model = ModelConfig(path=str(MODEL), weights=weights, engine_dtype="float32")
            config = EngineConfig(max_seqs=64, max_tokens=LIMIT, kv_cache_bytes=2**27)
            engine = Engine(
                model, config, max_versions=2, seed=0, multiplex=kind == "shadow", stat_loggers=kind == "lora"
            )
            self._run(engine.start())
            self._kind, self._engine = kind, engine
        assert self._engine is not None
        return self._engine

    def stop(self) -> None:
        if self._engine is not None:
            self._run(self._engine.stop())
        self._kind, self._engine = "", None


@pytest.fixture(scope="module")
def live(run: Run[Any]) -> Iterator[Live]:
    engines = Live(run)
    yield engines
    engines.stop()


@pytest.fixture
def lora(live: Live, run: Run[Any]) -> Iterator[Engine]:
    engine = live.get("lora")
    yield engine
    for ref in [*engine._versions._coming_or_going, *engine.loaded()]:
        if ref != BASE:
            run(engine.unload(ref))


@pytest.fixture
def full(live: Live, run: Run[Any]) -> Iterator[Engine]:
    engine = live.get("full")
    yield engine
    run(engine.swap(BASE))


@pytest.fixture
def shadow(live: Live) -> Engine:
    return live.get("shadow")


@pytest.fixture(scope="module")
def base() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    """Two adapters on disk, each with its PEFT model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=list(Lora().targets)))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.03)
        path = tmp_path_factory.mktemp("adapters") / f"v{seed + 1}"
        tuned.save_pretrained(path)
        made.append((path, tuned.eval()))
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Any]]:
    """Two whole models on disk, next to the base, each loaded with transformers."""
    from transformers import AutoModelForCausalLM

    made = []
    for seed in range(2):
        path = tmp_path_factory.mktemp("models") / f"v{seed + 1}"
        shutil.copytree(MODEL, path)
        torch.manual_seed(seed)
        file = path / "model.safetensors"
        tensors = {name: t + 0.02 * t.float().std() * torch.randn_like(t) for name, t in load_file(file).items()}
        file.unlink()
        save_file(tensors, file, metadata={"format": "pt"})
        made.append((path, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)))
    return made


def ids_of(candidate: Any) -> list[int]:
    return [*unpack_ids(candidate.context_ids), *unpack_ids(candidate.completion_ids)]


def test_importing_the_engine_does_not_import_vllm_torch_or_ray() -> None:
    import subprocess
    import sys

    heavy = "('vllm', 'torch', 'ray', 'transformers')"
    code = f"import sys, serve.engine.engine; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=MODEL.parents[2], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


# --- adapters: answering ---


def test_greedy_answers_are_those_of_transformers_and_end_with_the_stop_token(
    lora: Engine, run: Run[Any], base: Any
) -> None:
    for messages in QUESTIONS[:4]:
        (candidate,) = run(lora.generate(messages, GREEDY, BASE))
        context, completion = unpack_ids(candidate.context_ids), unpack_ids(candidate.completion_ids)
        expected = base.generate(torch.tensor([context]), do_sample=False, max_new_tokens=80)[
            0, len(context) :
        ].tolist()
        assert completion == expected and completion[-1] == 2
        assert candidate.finish == "stop" and candidate.start == candidate.end == BASE
        assert lora.render(messages, candidate.text) == (context, completion), "text and token ids differ"


def test_an_answer_sampled_step_by_step_is_the_answer_sampled_at_once(lora: Engine, run: Run[Any]) -> None:
    prompt = as_prompt([message.model_dump() for message in QUESTIONS[0]])
    (whole,) = run(lora.generate(prompt, GREEDY, BASE))
    steps: list[Candidate] = []
    context = prompt
    while not steps or steps[-1].finish == "stop_string":
        context = going_on(context, steps[-1]) if steps else prompt
        steps += run(lora.generate(context, GREEDY.model_copy(update={"stop": (". ",)}), BASE))
    assert len(steps) > 1 and all(". " in step.text for step in steps[:-1]) and steps[-1].finish == "stop"
    assert b"".join(step.completion_ids for step in steps) == whole.completion_ids
    assert "".join(step.text for step in steps) == whole.text
    asked = then(context, steps[-1], "Are you sure?")
    (second,) = run(lora.generate(asked, GREEDY, BASE))
    said = unpack_ids(second.context_ids)
    assert said[: len(whole.context_ids) // 4] == unpack_ids(whole.context_ids), "turns are behind the same question"


def test_every_sample_ends_with_the_stop_token_or_is_marked_as_cut(lora: Engine, run: Run[Any]) -> None:
    candidates = run(lora.generate(QUESTIONS[0], Sampling(n=32, temperature=0.7, max_tokens=30), BASE))
    assert len(candidates) == len({c.id for c in candidates}) == 32
    for candidate in candidates:
        ids = unpack_ids(candidate.completion_ids)
        assert (ids[-1] == 2) == (candidate.finish == "stop") and ids.count(2) <= 1
        assert candidate.finish == "stop" or len(ids) == 30
        assert candidate.render_id == lora.render_id and candidate.logprobs == b""


def test_each_sample_that_ends_is_told_when_it_does(lora: Engine, run: Run[Any]) -> None:
    ends: list[float] = []
    sampling = Sampling(n=16, temperature=1.5, max_tokens=120, seed=5)
    candidates = run(lora.generate(QUESTIONS[0], sampling, BASE, ended=lambda: ends.append(time.monotonic())))
    assert len(ends) == len(candidates) == 16
    lengths = sorted(len(unpack_ids(c.completion_ids)) for c in candidates)
    assert lengths[0] < lengths[-1] and ends[0] < ends[-1], "the callback must run before all samples have ended"
    run(lora.generate(QUESTIONS[0], sampling, BASE))
    assert len(ends) == 16 and not lora._ends


def test_the_samples_of_a_prompt_share_its_whole_blocks(
    lora: Engine, run: Run[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    manager = lora._llm.logger_manager
    monkeypatch.setattr(manager, "record", lambda **told: steps.append(told["iteration_stats"]))
    context = [5 + i % 200 for i in range(100)]  # three whole blocks of 32 tokens, plus four tokens
    run(lora.generate(context, Sampling(n=8, max_tokens=4), BASE))
    prompts = [step.prompt_token_stats for step in steps if step is not None]
    assert sum(one.computed for one in prompts) == 100 + 7 * 4
    assert sum(one.local_cache_hit for one in prompts) == 7 * 96


def test_a_seed_repeats_its_samples(lora: Engine, run: Run[Any]) -> None:
    sampling = Sampling(n=4, temperature=1.0, max_tokens=40, seed=11)
    first, again = (run(lora.generate(QUESTIONS[1], sampling, BASE)) for _ in range(2))
    assert [c.completion_ids for c in first] == [c.completion_ids for c in again]
    assert len({c.completion_ids for c in first}) > 1


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_logprobs_are_those_of_the_sampling_distribution(
    lora: Engine, run: Run[Any], base: Any, temperature: float
) -> None:
    sampling = Sampling(n=8, temperature=temperature, max_tokens=60, logprobs=True)
    for candidate in run(lora.generate(QUESTIONS[2], sampling, BASE)):
        ids, logprobs = ids_of(candidate), unpack_floats(candidate.logprobs)
        expected = logprobs_of(base, ids, temperature)[-len(logprobs) :]
        assert len(logprobs) == len(unpack_ids(candidate.completion_ids))
        assert (torch.tensor(logprobs) - expected).abs().max() < 1e-3


def test_scoring_gives_every_token_also_when_the_prefix_is_cached(lora: Engine, run: Run[Any], base: Any) -> None:
    (candidate,) = run(lora.generate(QUESTIONS[3], GREEDY, BASE))
    ids = ids_of(candidate)
    for _ in range(2):
        rows = run(lora.score([ids, ids[:1], ids[:40]], BASE))
        assert [len(row) for row in rows] == [len(ids) - 1, 0, 39]
        assert gap(rows[0], base, ids) < 1e-3 and gap(rows[2], base, ids[:40]) < 1e-3


def test_a_sequence_that_fills_the_engine_is_answered_and_scored_and_a_longer_one_is_refused(
    lora: Engine, run: Run[Any], base: Any
) -> None:
    context = [1, *[10 + i % 50 for i in range(LIMIT - 6)]]
    (candidate,) = run(lora.generate(context, Sampling(temperature=1, max_tokens=500, seed=3), BASE))
    assert len(ids_of(candidate)) <= LIMIT
    full = [1, *[10 + i % 50 for i in range(LIMIT - 1)]]
    assert gap(run(lora.score([full], BASE))[0], base, full) < 1e-3
    with pytest.raises(PromptError, match=f"the context has {LIMIT} tokens; this engine accepts 1 to {LIMIT - 1}"):
        run(lora.generate(full, GREEDY, BASE))
    with pytest.raises(PromptError, match=f"a sequence to score has {LIMIT + 1} tokens"):
        run(lora.score([[*full, 5]], BASE))


def test_a_cancelled_caller_aborts_its_request_in_the_engine(lora: Engine, run: Run[Any]) -> None:
    async def cancel() -> int:
        task = asyncio.create_task(lora.generate(QUESTIONS[0], Sampling(n=16, max_tokens=150), BASE))
        async with asyncio.timeout(10):
            while not lora._llm.get_num_unfinished_requests():
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return lora._llm.get_num_unfinished_requests()

    assert run(cancel()) == 0


# --- adapters: versions ---


def test_each_version_answers_with_its_own_weights_also_in_one_batch(
    lora: Engine, run: Run[Any], base: Any, adapters: list[tuple[Path, Any]]
) -> None:
    async def all_at_once(ids: list[int]) -> list[list[float]]:
        await lora.stage(published(V1, adapters[0][0]))
        await lora.stage(published(V2, adapters[1][0]))
        return [row for (row,) in await asyncio.gather(*(lora.score([ids], ref) for ref in (BASE, V1, V2)))]

    ids = ids_of(run(lora.generate(QUESTIONS[4], GREEDY, BASE))[0])
    rows = run(all_at_once(ids))
    assert lora.loaded() == [BASE, V1, V2]
    for row, model in zip(rows, [base, adapters[0][1], adapters[1][1]], strict=True):
        assert gap(row, model, ids) < 1e-3
    assert gap(rows[0], adapters[0][1], ids) > 0.1, "the versions differ too little for this test"


def test_tokens_of_the_base_and_of_every_adapter_in_one_batch_are_each_multiplied_by_their_own(
    lora: Engine, run: Run[Any], base: Any, adapters: list[tuple[Path, Any]]
) -> None:
    """vLLM 0.31 on a CPU applies the adapter in the last slot to tokens of the base, even after it was unloaded."""
    models = {BASE: base, V1: adapters[0][1], V2: adapters[1][1]}
    sampling = Sampling(temperature=1, max_tokens=40, logprobs=True)

    async def scene() -> None:
        await lora.stage(published(V1, adapters[0][0]))
        await lora.stage(published(V2, adapters[1][0]))
        for refs in ((V1, BASE, V2), (V1, BASE)):
            jobs = [(ref, i) for i in range(8) for ref in refs]
            groups = await asyncio.gather(*(lora.generate(QUESTIONS[i], sampling, ref) for ref, i in jobs))
            rows = await asyncio.gather(
                *(lora.score([ids_of(c)], ref) for (ref, _), (c,) in zip(jobs, groups, strict=True))
            )
            for (ref, _), (candidate,), (row,) in zip(jobs, groups, rows, strict=True):
                sampled = unpack_floats(candidate.logprobs)
                expected = logprobs_of(models[ref], ids_of(candidate))
                assert (torch.tensor(sampled) - expected[-len(sampled) :]).abs().max() < 1e-3, f"decoding {ref}"
                assert (torch.tensor(row) - expected).abs().max() < 1e-3, f"scoring {ref}"
            if V2 in lora.loaded():
                await lora.unload(V2)

    run(scene())


def test_a_request_in_flight_keeps_its_version_while_another_is_staged_and_used(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]]
) -> None:
    async def answers(ref: PolicyRef) -> list[bytes]:
        groups = await asyncio.gather(*(lora.generate(q, GREEDY, ref) for q in QUESTIONS))
        assert all(c.start == c.end == ref for group in groups for c in group)
        return [group[0].completion_ids for group in groups]

    async def scene() -> None:
        await lora.stage(published(V1, adapters[0][0]))
        alone = await answers(V1)
        before = asyncio.create_task(answers(V1))
        await asyncio.sleep(0.05)
        await lora.stage(published(V2, adapters[1][0]))
        assert lora._llm.get_num_unfinished_requests() > 0, "no request was in flight when the version was staged"
        other = await answers(V2)
        assert await before == alone
        assert other != alone

    run(scene())


def test_unload_refuses_newcomers_lets_its_requests_end_and_frees_the_place(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]]
) -> None:
    async def scene() -> None:
        await lora.stage(published(V1, adapters[0][0]))
        alone = (await lora.generate(QUESTIONS[0], GREEDY, V1))[0].completion_ids
        running = asyncio.create_task(lora.generate(QUESTIONS[0], GREEDY, V1))
        await asyncio.sleep(0.02)
        leaving = asyncio.create_task(lora.unload(V1))
        await asyncio.sleep(0)
        with pytest.raises(VersionError, match=r"policy@v1 is not loaded \(loaded: policy@v0\)"):
            await lora.generate(QUESTIONS[0], GREEDY, V1)
        assert not leaving.done() and len(await lora._llm.list_loras()) == 1
        assert (await running)[0].completion_ids == alone
        await leaving
        assert len(await lora._llm.list_loras()) == 0

    run(scene())


def test_unload_waits_for_requests_that_came_through_the_openai_app(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]]
) -> None:
    async def scene() -> None:
        await lora.stage(published(V1, adapters[0][0]))
        app = await lora.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            body = {"model": "policy@v1", "messages": [m.model_dump() for m in QUESTIONS[0]], "n": 8, "max_tokens": 80}
            running = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            async with asyncio.timeout(10):
                while not lora._llm.get_num_unfinished_requests():
                    await asyncio.sleep(0.001)
            await lora.unload(V1)
            assert running.done() or not lora._llm.get_num_unfinished_requests()
            assert (await running).status_code == 200
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 404

    run(scene())


def test_verify_weights_finds_a_swap_that_did_not_happen(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]], tmp_path: Path
) -> None:
    first, second = (path for path, _ in adapters)
    run(lora.stage(published(V1, first)))
    run(lora.stage(published(V2, second)))
    assert run(lora.verify_weights(published(V1, first))) == []
    assert run(lora.verify_weights(published(V2, second))) == []
    assert len(run(lora.verify_weights(published(V1, second)))) == 4 * 14, "expected A and B of every linear layer"
    one_less = shutil.copytree(first, tmp_path / "one_less")
    file = one_less / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "layers.2.self_attn.k_proj.lora_B" in name))
    save_file(tensors, file)
    assert [line.split(":")[0] for line in run(lora.verify_weights(published(V1, one_less)))] == [
        "model.layers.2.self_attn.qkv_proj.1.B"
    ]
    digests = [run(lora.weight_digests(ref)) for ref in (V1, V2, V1)]
    assert digests[0] == digests[2] and all(digests[0][name] != digests[1][name] for name in digests[0])


def test_verify_weights_finds_another_scale_and_a_weight_that_the_engine_left_out(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]], tmp_path: Path
) -> None:
    path = shutil.copytree(adapters[0][0], tmp_path / "scaled")
    run(lora.stage(published(V1, adapters[0][0])))
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 32}))
    lines = run(lora.verify_weights(published(V1, path)))
    assert len(lines) == 4 * 7 and all(".B: differs" in line for line in lines)
    shutil.copy(adapters[0][0] / "adapter_config.json", path)
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(8, 128)
    save_file(tensors, file)
    assert run(lora.verify_weights(published(V1, path))) == ["lm_head.A: in the file, not in the engine"]


def test_the_base_is_verified_too_below_its_adapters(
    lora: Engine, run: Run[Any], models: list[tuple[Path, Any]]
) -> None:
    assert run(lora.verify_weights(published(BASE, MODEL))) == []
    assert len(run(lora.verify_weights(published(BASE, models[0][0])))) == len(run(lora.weight_digests(BASE)))


def test_a_version_that_cannot_be_staged_is_refused_and_everything_else_goes_on(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]], tmp_path: Path
) -> None:
    first, second = (path for path, _ in adapters)
    damaged = shutil.copytree(first, tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"not safetensors")
    for path in (damaged, tmp_path / "missing"):
        with pytest.raises(ArtifactError, match=path.name):
            run(lora.stage(published(V1, path)))
    wide = shutil.copytree(first, tmp_path / "wide")
    config = json.loads((wide / "adapter_config.json").read_text())
    (wide / "adapter_config.json").write_text(json.dumps(config | {"r": 64}))
    with pytest.raises(ArtifactError, match="64"):
        run(lora.stage(published(V1, wide)))
    assert lora.loaded() == [BASE]
    run(lora.stage(published(V1, first)))
    run(lora.stage(published(V1, first)))
    with pytest.raises(VersionError, match="use a new number"):
        run(lora.stage(published(V1, second)))
    run(lora.stage(published(V2, second)))
    with pytest.raises(VersionError, match=r"no slot for policy@v3: policy@v1, policy@v2 use all 2 slots"):
        run(lora.stage(published(V3, first)))
    with pytest.raises(VersionError, match="the base is never unloaded"):
        run(lora.unload(BASE))
    with pytest.raises(ConfigError, match="adapters"):
        run(lora.swap(BASE))
    assert lora.loaded() == [BASE, V1, V2]


def test_an_adapter_of_fewer_layers_and_a_smaller_rank_is_served_and_verified(
    lora: Engine, run: Run[Any], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(9)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tuned = get_peft_model(
        model, LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "down_proj"])
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05)
    tuned.save_pretrained(tmp_path / "small")
    run(lora.stage(published(V1, tmp_path / "small")))
    assert run(lora.verify_weights(published(V1, tmp_path / "small"))) == []
    ids = ids_of(run(lora.generate(QUESTIONS[5], GREEDY, BASE))[0])
    assert gap(run(lora.score([ids], V1))[0], tuned, ids) < 1e-3


# --- the OpenAI app ---


def test_the_openai_app_answers_for_each_version_as_generate_does(
    lora: Engine, run: Run[Any], adapters: list[tuple[Path, Any]]
) -> None:
    async def scene() -> None:
        await lora.stage(published(V1, adapters[0][0]))
        app = await lora.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            names = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
            assert names == ["policy@v0", "policy@v1"]
            messages = [m.model_dump() for m in QUESTIONS[6]]
            for ref in (BASE, V1):
                body = {"model": str(ref), "messages": messages, "temperature": 0, "max_tokens": 80}
                answer = (await client.post("/v1/chat/completions", json=body)).json()
                (candidate,) = await lora.generate(QUESTIONS[6], GREEDY, ref)
                assert answer["choices"][0]["message"]["content"] == candidate.text
                assert answer["usage"]["prompt_tokens"] * 4 == len(candidate.context_ids)
            body = {"model": "policy@v0", "messages": messages}
            tokens = (await client.post("/tokenize", json=body)).json()["tokens"]
            assert tokens == lora.render(QUESTIONS[6])[0]
            assert (await client.post("/v1/chat/completions", json=body | {"model": "policy@v9"})).status_code == 404
            too_long = [{"role": "user", "content": "plums " * 400}]
            assert (await client.post("/v1/chat/completions", json=body | {"messages": too_long})).status_code == 400

    run(scene())


def test_a_streamed_answer_is_the_whole_one_in_vllms_own_events(lora: Engine, run: Run[Any]) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionStreamResponse

    async def scene() -> None:
        app = await lora.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            body = {"model": "policy@v0", "messages": [m.model_dump() for m in QUESTIONS[6]], "temperature": 0}
            body |= {"max_tokens": 30, "logprobs": True, "top_logprobs": 2}
            whole = (await client.post("/v1/chat/completions", json=body)).json()
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            lines = (await client.post("/v1/chat/completions", json=body)).text.split("\n\n")
            assert lines[-2:] == ["data: [DONE]", ""]
            assert ["".join(lines).count(mark.decode()) for mark in (ROLE, USAGE, DONE)] == [1, 1, 1]
            events = [line.removeprefix("data: ") for line in lines[:-2]]
            for event in events[:-1]:  # the last event omits null fields
                read = ChatCompletionStreamResponse.model_validate_json(event)
                assert read.model_dump_json(exclude_unset=True) == event
            first, *said, usage = map(json.loads, events)
            assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            counts = ("prompt_tokens", "completion_tokens", "total_tokens")
            assert [usage["usage"][name] for name in counts] == [whole["usage"][name] for name in counts]
            (choice,), parts = whole["choices"], [event["choices"][0] for event in said]
            assert "".join(part["delta"]["content"] for part in parts) == choice["message"]["content"]
            assert [token for part in parts for token in part["logprobs"]["content"]] == choice["logprobs"]["content"]
            assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]

    run(scene())


def test_routes_that_are_not_on_the_list_answer_404_in_openais_shape(lora: Engine, run: Run[Any]) -> None:
    async def scene() -> None:
        app = await lora.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/version")).status_code == 200
            refused = [path for path in lora.routes() if path not in ALLOWED]
            for path in [*refused, "/v1/models/", "//health", "/v1/load_lora_adapter"]:
                for method in ("GET", "POST"):
                    answer = await client.request(method, path, json={})
                    assert answer.status_code == 404, path
                    assert answer.json()["error"]["type"] == "not_found_error"

    assert {"/scale_elastic_ep", "/invocations", "/metrics"} <= set(lora.routes()), "vLLM no longer mounts these routes"
    run(scene())


def test_vllms_app_tells_no_page_that_it_may_read_its_answers(lora: Engine, run: Run[Any]) -> None:
    async def scene() -> None:
        app = await lora.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            answer = await client.get("/v1/models", headers={"origin": "https://elsewhere.example"})
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("access-control")], "vLLM's default is `*`"

    run(scene())


def test_an_engine_that_died_is_unhealthy_and_says_so_to_callers(lora: Engine, live: Live, run: Run[Any]) -> None:
    run(lora.healthy())
    children = psutil.Process().children(recursive=True)
    core = max(children, key=lambda child: child.memory_info().rss)

    async def scene() -> None:
        asking = asyncio.create_task(lora.generate(QUESTIONS[0], Sampling(n=32, max_tokens=150), BASE))
        await asyncio.sleep(0.05)
        core.kill()
        with pytest.raises(Unavailable, match="another replica"):
            async with asyncio.timeout(30):
                await asking
        with pytest.raises(Unavailable, match="died"):
            await lora.healthy()
        with pytest.raises(Unavailable):
            await lora.generate(QUESTIONS[0], GREEDY, BASE)

    run(scene())
    live.stop()
    with pytest.raises(Unavailable, match="not running"):
        run(lora.healthy())


# --- whole models ---


def test_a_whole_model_is_swapped_under_its_users_and_answers_as_transformers_says(
    full: Engine, run: Run[Any], base: Any, models: list[tuple[Path, Any]]
) -> None:
    async def scene() -> None:
        for ref, (path, model) in zip((V1, V2), models, strict=True):
            before = full.loaded()[0]
            users = [asyncio.create_task(full.generate(q, Sampling(n=8, max_tokens=100), before)) for q in QUESTIONS]
            async with asyncio.timeout(20):
                while full._llm.get_num_unfinished_requests() < 64:
                    await asyncio.sleep(0.001)
            pause_s = await full.swap(published(ref, path))
            assert 0 < pause_s < 30 and full.loaded() == [ref]
            ids = ids_of((await full.generate(QUESTIONS[0], GREEDY, ref))[0])
            (row,) = await full.score([ids], ref)
            assert gap(row, model, ids) < 1e-3
            assert gap(row, base, ids) > 0.05
            answers = [c for group in await asyncio.gather(*users) for c in group]
            assert {c.start for c in answers} == {before}
            assert ref in {c.end for c in answers}, "no request in flight names both versions"
            assert await full._llm.get_weight_version() == str(ref)

    run(scene())


def test_a_damaged_or_foreign_model_leaves_the_version_before_answering(
    full: Engine, run: Run[Any], models: list[tuple[Path, Any]], tmp_path: Path
) -> None:
    path, model = models[0]
    run(full.stage(published(V1, path)))
    ids = ids_of(run(full.generate(QUESTIONS[0], GREEDY, V1))[0])
    tensors = load_file(path / "model.safetensors")
    norm = next(name for name in tensors if "norm" in name)
    changes: dict[str, Callable[[Path], object]] = {
        "truncated": lambda f: f.write_bytes((path / "model.safetensors").read_bytes()[:-1000]),
        "foreign": lambda f: save_file(tensors | {norm: torch.ones(64)}, f),
        "partial": lambda f: save_file({k: v for k, v in tensors.items() if "layers.3" not in k}, f),
        "extra": lambda f: save_file(tensors | {"model.more.weight": torch.ones(64)}, f),
    }
    for name, change in changes.items():
        folder = shutil.copytree(path, tmp_path / name)
        (folder / "model.safetensors").unlink()
        change(folder / "model.safetensors")
        with pytest.raises(ArtifactError, match=f"{name} cannot be loaded.*policy@v1 continues to answer"):
            run(full.swap(published(V2, folder)))
        assert full.loaded() == [V1]
        assert gap(run(full.score([ids], V1))[0], model, ids) < 1e-3
    with pytest.raises(ArtifactError, match="is not a folder"):
        run(full.swap(published(V2, tmp_path / "missing")))
    with pytest.raises(VersionError):
        run(full.swap(V3))
    run(full.healthy())


def test_the_whole_memory_is_compared_with_the_files_the_tied_head_included(
    full: Engine, run: Run[Any], models: list[tuple[Path, Any]]
) -> None:
    assert run(full.verify_weights(published(BASE, MODEL))) == []
    assert any(line.startswith("lm_head.weight") for line in run(full.verify_weights(published(BASE, models[0][0]))))
    run(full.stage(published(V1, models[0][0])))
    assert run(full.verify_weights(published(V1, models[0][0]))) == []
    differing = run(full.verify_weights(published(V1, models[1][0])))
    assert len(differing) == len(run(full.weight_digests(V1)))


def test_a_caller_that_names_the_version_of_a_moment_ago_is_answered_and_an_older_one_is_refused(
    full: Engine, run: Run[Any], models: list[tuple[Path, Any]]
) -> None:
    async def scene() -> None:
        app = await full.openai_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
            body: dict[str, Any] = {"messages": [m.model_dump() for m in QUESTIONS[0]], "max_tokens": 5}
            await full.swap(published(V1, models[0][0]))
            for ref, status in ((BASE, 200), (V1, 200), (V2, 404)):
                assert (
                    await client.post("/v1/chat/completions", json=body | {"model": str(ref)})
                ).status_code == status
            assert (await full.generate(QUESTIONS[0], GREEDY, BASE))[0].end == V1
            await full.swap(published(V2, models[1][0]))
            assert (await client.post("/v1/chat/completions", json=body | {"model": "policy@v0"})).status_code == 404
            with pytest.raises(VersionError, match=r"policy@v0 is not loaded \(loaded: policy@v2\)"):
                await full.generate(QUESTIONS[0], GREEDY, BASE)
            await full.unload(V2)
            assert full.loaded() == [V1]

    run(scene())


def test_a_shadow_engine_answers_for_any_version_in_turns(
    shadow: Engine, run: Run[Any], base: Any, models: list[tuple[Path, Any]], tmp_path: Path
) -> None:
    damaged = shutil.copytree(models[0][0], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not safetensors")

    async def scene() -> None:
        await shadow.stage(published(V1, models[0][0]))
        await shadow.stage(published(V2, models[1][0]))
        await shadow.stage(published(V3, damaged))
        assert shadow.loaded() == [BASE, V1, V2, V3]
        refs = [BASE, V1, V3, V2] * 4
        asked = [shadow.generate(QUESTIONS[i], GREEDY, ref) for i, ref in enumerate(refs)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for ref, answer in zip(refs, answers, strict=True):
            if ref == V3:
                assert isinstance(answer, ArtifactError)
                continue
            assert isinstance(answer, list) and answer[0].start == answer[0].end == ref
            path, model = {BASE: (MODEL, base), V1: models[0], V2: models[1]}[ref]
            ids = ids_of(answer[0])
            (row,), mismatches = await asyncio.gather(
                shadow.score([ids], ref), shadow.verify_weights(published(ref, path))
            )
            assert mismatches == [] and gap(row, model, ids) < 1e-3, str(ref)
        await shadow.unload(V1)
        with pytest.raises(VersionError, match="policy@v1 is not loaded"):
            await shadow.generate(QUESTIONS[0], GREEDY, V1)

    run(scene())
