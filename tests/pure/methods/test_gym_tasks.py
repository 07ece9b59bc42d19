"""Data sets of reasoning-gym as tasks, with a stand-in for the library: its import takes seconds and it is an extra."""

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.config import Config, NumberAnswer, load
from core.errors import ConfigError
from methods.data import gym_tasks, prompts
from methods.data.held_out import kept_out
from methods.data.probes import refuse_overlap
from methods.data.tasks import with_task

LIBRARY = """
import random
from .dataset import ProceduralDataset
from .factory import DATASETS

def create_dataset(name, **options):
    return DATASETS[name][0](**options)
"""
DATASET = """
class ProceduralDataset:
    def score_answer(self, answer, entry):
        return float(answer == entry["answer"])
"""
FACTORY = """
import random
from .dataset import ProceduralDataset

class Sums(ProceduralDataset):
    def __init__(self, size, seed, most=99):
        if most < 1:
            raise AssertionError("most must be positive")
        self.seed, self.most = seed, most
    def __getitem__(self, index):
        a, b = (random.Random(f"{self.seed}:{index}:{n}").randint(1, self.most) for n in "ab")
        return {"question": f"What is {a} + {b}?", "answer": str(a + b)}

class Words(Sums):
    def __getitem__(self, index):
        word = "".join(random.Random(f"{self.seed}:{index}").choices("abcdefgh", k=6))
        return {"question": f"Spell {word} backward.", "answer": word[::-1]}
    def score_answer(self, answer, entry):
        return float(answer == entry["answer"])

class Wrong(Sums):
    def score_answer(self, answer, entry):
        return 0.5

class Unread(Sums):
    def __getitem__(self, index):
        return {"question": f"Question {index}?", "answer": " "}

class Alike(Sums):
    def __getitem__(self, index):
        a, b, form = (random.Random(f"{self.seed}:{index}:{n}").randint(1, 9) for n in "abc")
        return {"question": f"Calculate {a} + {b}." if form % 2 else f"calculate: {a} + {b}", "answer": str(a + b)}

class Preamble(Sums):
    def __getitem__(self, index):
        entry = super().__getitem__(index)
        rules = "Here is a sum. Give one whole number and nothing else, without words, units or steps, on a line."
        return {**entry, "question": f"{rules} {entry['question']}"}

DATASETS = {
    "preamble": (Preamble,),
    "basic_arithmetic": (Alike,),
    "chain_sum": (Sums,),
    "spell_backward": (Words,),
    "maze_route": (Wrong,),
    "products": (Wrong,),
    "blank": (Unread,),
}
"""


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, about = tmp_path / "site/reasoning_gym", tmp_path / "site/reasoning_gym-0.1.25.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    for name, source in (("__init__", LIBRARY), ("dataset", DATASET), ("factory", FACTORY)):
        (package / f"{name}.py").write_text(source)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: reasoning-gym\nVersion: 0.1.25\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))


def gym(task: str, *more: str) -> Config:
    return load(None, ["prompts.kind=reasoning-gym", f"prompts.task={task}", "prompts.size=200", *more])


def texts(path: str | None) -> list[str]:
    return [prompt[-1]["content"] for prompt in pq.read_table(path).column("prompt").to_pylist()]


def test_a_data_set_becomes_three_files_of_different_questions() -> None:
    config = with_task(gym("chain_sum"))
    parts = [texts(path) for path in (config.prompts.path, config.gate.held_out, config.report.questions)]
    everything = [text for part in parts for text in part]
    assert [len(part) for part in parts] == [110, 50, 40] and len(set(everything)) == 200
    assert config.method.answer == NumberAnswer() and config.method.sampler.max_tokens == 19
    rows = pq.read_table(config.report.questions).to_pylist()
    for row in rows:
        *shots, question = [turn["content"] for turn in row["prompt"]]
        a, b = question.removeprefix("What is ").removesuffix("?").split(" + ")
        assert row["answer"] == str(int(a) + int(b)) and shots[1].startswith("The answer is ")
        assert len(shots) == 4 and shots[0] not in everything


def test_questions_that_a_run_would_take_for_one_are_one() -> None:
    config = with_task(gym("basic_arithmetic", "prompts.shots=1"))
    pool = prompts.read(config.prompts)
    refuse_overlap(pool, prompts.read(config.prompts.model_copy(update={"path": config.gate.held_out})), "a", "b")
    everything = [t for p in (config.prompts.path, config.gate.held_out, config.report.questions) for t in texts(p)]
    assert len({text.casefold().strip(".").replace(":", "") for text in everything}) == len(everything) == 80


def test_questions_with_a_long_common_part_stay_in_the_pool() -> None:
    config = with_task(gym("preamble"))
    held = kept_out(config)
    assert not any(held.holds(prompt) for prompt in prompts.read(config.prompts))


def test_answers_that_are_no_numbers_are_read_from_a_sentence() -> None:
    config = with_task(gym("spell_backward"))
    assert config.method.answer == gym_tasks.STATED and config.method.sampler.max_tokens == 22


def test_without_shots_there_is_room_to_think() -> None:
    assert with_task(gym("chain_sum", "prompts.shots=0")).method.sampler.max_tokens == 19 + gym_tasks.THINKING_TOKENS


def test_options_reach_the_data_set_and_questions_may_run_out() -> None:
    config = with_task(gym("chain_sum", "prompts.options.most=9", "prompts.shots=1"))
    everything = [t for p in (config.prompts.path, config.gate.held_out, config.report.questions) for t in texts(p)]
    assert 70 < len(everything) <= 80 and all(len(text) == len("What is 1 + 1?") for text in everything)


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("chain_sums", [], "'chain_sums' is no data set of reasoning-gym 0.1.25; nearest: chain_sum"),
        ("maze_route", [], "may have several right answers, which only its own verifier can tell"),
        ("products", [], "does not accept its own answer"),
        ("blank", [], "cannot be read back"),
        ("chain_sum", ["prompts.options.most=0"], "do not fit reasoning-gym's chain_sum: most must be positive"),
        ("chain_sum", ["prompts.options.mots=3"], "do not fit reasoning-gym's chain_sum: .*'mots'"),
        ("chain_sum", ["prompts.options.most=1"], "has only 1 different questions"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused(task: str, more: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_task(gym(task, *more))


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sys.path.remove(str(tmp_path / "site"))

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ConfigError, match=r"-m pip install 'reasoning-gym==0\.1\.25'"):
        with_task(gym("chain_sum"))
