"""What holds for every recipe, without keys, models or Ray. A new recipe needs no change here."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.in_process import LocalSystem, ScriptedSession
from core import config as configuration
from core.clock import ManualClock
from core.config import Config
from core.errors import ConfigError
from core.messages import Compared, Outcome, PolicyRef, Resettle, Vote
from core.protocols import History, Method
from core.store.writer import RunReader
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import explore, settle_again
from methods.scripted_policy import ScriptedPolicy
from training import objectives

NAMES = recipes.names()
PROMPTS = [as_prompt(f"Box {number} holds 2 red balls. How many balls does it hold?") for number in range(12)]


def settings(name: str, *more: str) -> Config:
    overrides = [
        f"method.recipe={name}",
        "method.votes.quorum=1",
        "report.questions=null",
        *recipes.card(name).overrides,
    ]
    return configuration.load(None, [*overrides, *more])


def policy() -> ScriptedPolicy:
    made = ScriptedPolicy(accuracy={0: 0.5, 1: 0.5, 2: 0.6}, unparsable_ratio=0.1)
    made.explore = PolicyRef(version=1)
    return made


def explored(method: Method, sampler: ScriptedPolicy, place: int) -> Outcome:
    history = History(tuned=method.tuned)
    work = explore(method, PROMPTS[place], sampler, lease_id="l", place=place, clock=ManualClock(1.0), history=history)
    return asyncio.run(work)


def voted(outcome: Outcome) -> tuple[Vote, ...]:
    """Thumbs for the first and against the second sample, the first above the second, and a text to imitate."""
    sampled = [scored.group for scored in outcome.scored if scored.group.id in outcome.sampled_ids]
    first, second = [candidate for group in sampled for candidate in group.candidates][:2]
    above, below = (Compared(text=text, by=first.start) for text in ("It is 3.", "It is 4."))
    about = {"prompt_id": outcome.prompt_id, "by": "person", "cast_at": 1.0}
    return (
        Vote(id="up", candidate_id=first.id, voter="ann", **about),
        Vote(id="down", candidate_id=second.id, voter="bob", weight=-1, **about),
        Vote(id="pair", answer="It is 3.", pair=(above, below), voter="dan", **about),
        Vote(id="text", correction="That is 3. The answer is 3.", voter="cid", **about),
    )


def again(outcome: Outcome, votes: tuple[Vote, ...], tuned: dict[str, float]) -> Resettle:
    groups = tuple(scored.group for scored in outcome.scored if scored.group.id in outcome.sampled_ids)
    return Resettle(
        id="again",
        place=outcome.place,
        prompt_id=outcome.prompt_id,
        revision=len(votes),
        groups=groups,
        votes=votes,
        known=outcome.scored,
        tuned=tuned,
    )


def both(name: str) -> tuple[Method, list[Outcome]]:
    """The method, and what it makes of the prompts: without votes, and with late votes."""
    method, sampler = recipes.build(settings(name).method), policy()
    outcomes = [explored(method, sampler, place) for place in range(len(PROMPTS))]
    assert not [outcome.failure for outcome in outcomes if outcome.failure]
    late = [
        asyncio.run(settle_again(method, again(outcome, voted(outcome), dict(method.tuned)), sampler))
        for outcome in outcomes
    ]
    assert not [outcome.failure for outcome in late if outcome.failure]
    return method, [*outcomes, *late]


@pytest.mark.parametrize("name", NAMES)
def test_its_examples_are_what_its_objective_takes(name: str) -> None:
    method, outcomes = both(name)
    objectives.check(method)
    examples = [example for outcome in outcomes for example in outcome.examples]
    assert examples, "nothing is learned, neither without votes nor with them"
    for example in examples:
        assert len(example.rows) == method.objective.rows
        for row in example.rows:
            assert sum(span.tokens for span in row.spans) == len(row.token_ids) // 4 and row.targets > 0
            assert set(method.columns) <= row.columns.keys()


@pytest.mark.parametrize("name", NAMES)
def test_its_examples_say_who_made_them(name: str) -> None:
    _, outcomes = both(name)
    for outcome in outcomes:
        groups = {scored.group.id: scored.group for scored in outcome.scored}
        for example in outcome.examples:
            assert example.group_id in groups and example.method == name and example.adapter == "policy"
            made = {candidate.start.version for candidate in groups[example.group_id].candidates}
            assert example.policy.version in made and example.render_id == "scripted"
            assert example.by == groups[example.group_id].by
            assert not (example.fixed and example.policy.version), "only the base is exempt from staleness"


@pytest.mark.parametrize("name", NAMES)
def test_settling_again_makes_the_same_examples_and_asks_the_policy_for_nothing_new(name: str) -> None:
    method, sampler = recipes.build(settings(name).method), policy()
    for place in range(len(PROMPTS)):
        outcome = explored(method, sampler, place)
        tokens = dict(sampler.tokens)
        second = asyncio.run(settle_again(method, again(outcome, (), dict(method.tuned)), sampler))
        assert second.examples == outcome.examples and second.drops == outcome.drops
        assert dict(sampler.tokens) == tokens, "a judgement was paid for twice"


class Voters:
    """People who say `voted` of every prompt once it was explored."""

    def __init__(self, system: LocalSystem, folder: Path) -> None:
        self.system, self.folder = system, folder
        self.seen = set[int]()

    async def start(self) -> None: ...

    async def run(self) -> None:
        while True:
            reader = RunReader(self.folder)
            new = [each.place for each in reader.all("outcomes", Outcome) if each.place not in self.seen]
            for outcome in filter(None, map(reader.outcome, new)):
                self.seen.add(outcome.place)
                votes = [vote.model_copy(update={"id": f"{vote.id}:{outcome.place}"}) for vote in voted(outcome)]
                await self.system.buffer.people.vote(votes)
            reader.close()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", NAMES)
async def test_it_runs_to_a_version(name: str, tmp_path: Path) -> None:
    texts = (f"Box {i} holds {i} red balls. How many balls does it hold?" for i in range(300))
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    config = settings(
        name,
        f"prompts.path={tmp_path}/pool.jsonl",
        "learning.groups_per_window=16",
        "gate.enabled=false",
        "gate.anchors=null",
    )
    system = LocalSystem(config, tmp_path, policy(), ScriptedSession(tmp_path))
    if recipes.card(name).supervision == "people":
        system.beside.append(Voters(system, tmp_path))
    await system.run(decided=1)
    reader = RunReader(tmp_path)
    (first, *_) = reader.versions()
    assert reader.count("decisions") >= 1 and first.stats["examples"] > 0
    tuned = recipes.build(config.method).tuned
    events = [event.detail for event in reader.events("tuned")]
    assert bool(events) == (recipes.build(config.method).tune is not None)
    assert all(tuned.keys() <= detail.keys() for detail in events)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "unvoted"])
def test_an_option_that_it_does_not_have_is_refused_with_those_it_has(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe {name} has no setting method\.options\.shoe_size; it has: "):
        recipes.build(settings(name, "method.options.shoe_size=43").method)


@pytest.mark.parametrize("name", NAMES)
def test_its_card_names_a_control_that_exists(name: str) -> None:
    card = recipes.card(name)
    assert card.title and card.source and card.cost
    control = card.control
    assert control in ("", *NAMES) or "=" in control
    if "=" in control:
        recipes.build(settings(name, control).method)


def test_every_recipe_has_its_place_in_the_table_of_systems() -> None:
    text = (Path(__file__).parents[4] / "docs/methods.md").read_text()
    table = text.partition("### Every system")[2].partition("\n### ")[0]
    assert not [name for name in NAMES if name != "unvoted" and f"`{name}`" not in table]
