"""What the gate asks, exactly or nearly, enters training on no path: the pool's file, and whatever is explored."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.collect.collector import Collector
from core import config as configuration
from core.messages import Lease
from methods.data.held_out import kept_out
from methods.data.probes import Probes
from methods.data.prompts import as_prompt, read
from methods.data.text import asked_text
from methods.scripted_policy import ScriptedPolicy

NAMES = ("Tom", "Ann", "Raj", "Mia", "Omar", "Ruth")
numbers = st.integers(2, 99)


@st.composite
def problems(draw: st.DrawFn) -> str:
    a, b, c = draw(numbers), draw(numbers), draw(numbers)
    one, two = draw(st.permutations(NAMES))[:2]
    return (
        f"{one} has {a} pens. {two} has {b} more pens than {one}. Then {c} pens of {two} are stolen on the way home. "
        f"How many pens do {one} and {two} have together?"
    )


WIDE = str.maketrans("0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19")
DISGUISES = st.sampled_from(
    [
        str.upper,
        lambda text: text.replace(". ", "  ...\n"),
        lambda text: text.translate(WIDE),
        lambda text: f"Please help me with my homework. {text} Explain every step.",
        lambda text: text.removesuffix(" together?"),
    ]
)


@given(st.lists(problems(), min_size=1, max_size=5), DISGUISES, st.data())
def test_a_disguised_probe_is_held(asked: list[str], disguise, data: st.DataObject) -> None:
    probes = Probes(map(as_prompt, asked))
    probe = data.draw(st.sampled_from(asked))
    assert probes.holds(as_prompt(disguise(probe)))
    chat = [{"role": "user", "content": disguise(probe)}, {"role": "assistant", "content": "7"}]
    assert probes.holds(as_prompt([*chat, {"role": "user", "content": "Are you sure?"}])), "an earlier turn asks it"


@given(problems(), st.data())
def test_one_template_with_other_numbers_is_another_question(probe: str, data: st.DataObject) -> None:
    other = "".join(str((int(c) + 3) % 10) if c.isdigit() else c for c in probe)
    assert not Probes([as_prompt(probe)]).holds(as_prompt(other))


def test_a_short_sentence_of_a_long_probe_is_no_probe() -> None:
    long = "Tom has 5 pens. Ann has 7 pens. Mia has 9 pens. How many pens do Tom and Ann and Mia have together?"
    assert not Probes([as_prompt(long)]).holds(as_prompt("How many pens do Tom and Ann and Mia have together?"))
    assert not Probes([as_prompt(long, system="Be brief.")]).holds(as_prompt("What is 2+2?", system="Be brief."))


def written(folder: Path, pool: list[str], probes: list[str]) -> configuration.Config:
    (folder / "pool.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in pool))
    (folder / "probes.jsonl").write_text("".join(json.dumps({"prompt": text, "answer": "1"}) + "\n" for text in probes))
    files = [f"prompts.path={folder}/pool.jsonl", f"gate.anchors={folder}/probes.jsonl", "report.questions=null"]
    return configuration.load(None, files)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(problems(), min_size=2, max_size=4, unique=True), DISGUISES)
def test_the_pool_is_read_without_what_the_gate_asks(tmp_path: Path, asked: list[str], disguise) -> None:
    probe, *others = asked
    fine = [text for text in others if not Probes([as_prompt(probe)]).holds(as_prompt(text))]
    config = written(tmp_path, [disguise(probe), *fine, "What is 2+2?"], [probe])
    pool = read(config.prompts, 0, kept_out(config))
    assert sorted(map(asked_text, pool)) == sorted([*fine, "What is 2+2?"]) and pool.near_probes == 1


async def test_a_prompt_that_reaches_a_collector_all_the_same_is_not_explored(tmp_path: Path) -> None:
    probe = "Tom has 5 pens. Ann has 7 pens. Mia has 9 pens. How many pens do Tom and Ann and Mia have together?"
    config = written(tmp_path, ["What is 2+2?"], [probe])
    policy = ScriptedPolicy(0)
    nobody: Any = None
    collector = Collector(nobody, config, policy)
    await collector.start()
    collector._prompts = [as_prompt(probe.upper(), origin="asked")]  # type: ignore[assignment]
    await collector._explore(Lease(id="l", places=(0,), expires_at=1e9), 0)
    outcome = collector._outbox.get_nowait()
    assert policy.calls == 0 and outcome.examples == ()
    assert outcome.failure == "PromptError: a probe asks the same, or nearly the same; probes are never learned from"
