"""Recipes by name, groups of given texts, and what a recipe makes of them."""

import asyncio
from collections.abc import Mapping, Sequence

from core import config as configuration
from core.codec import pack_floats, pack_ids, unpack_ids
from core.messages import BASE, Candidate, Group, PolicyRef, Prompt, Scored, Vote
from core.protocols import History, Method, Votes
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import Settled, settle
from methods.scripted_policy import ScriptedPolicy

PROMPT = as_prompt("How many?")


def built(name: str, *overrides: str) -> Method:
    more = recipes.card(name).overrides
    config = configuration.load(
        None, [f"method.recipe={name}", "method.votes.quorum=1", "report.questions=null", *more, *overrides]
    )
    return recipes.build(config.method)


def group(
    *texts: str,
    losses: Sequence[float] = (),
    prompt: Prompt = PROMPT,
    name: str = "g",
    ref: PolicyRef = BASE,
    cut: Sequence[int] = (),
) -> Group:
    """Candidates with these texts. `losses`: their mean losses (nats per token). `cut`: places of those cut off."""
    candidates: list[Candidate] = []
    for place, text in enumerate(texts):
        ids = [*(byte + 1 for byte in text.encode()), 0]
        candidates.append(
            Candidate(
                id=f"{name}-{place}",
                start=ref,
                end=ref,
                context_ids=pack_ids(prompt.messages[-1].content.encode()),
                completion_ids=pack_ids(ids),
                text=text,
                logprobs=pack_floats([-losses[place]] * len(ids)) if losses else b"",
                finish="length" if place in cut else "stop",
                render_id="r",
            )
        )
    return Group(id=name, prompt=prompt, candidates=tuple(candidates))


def settled(
    method: Method,
    groups: Group | Sequence[Group],
    *cast: Vote,
    policy: ScriptedPolicy | None = None,
    tuned: Mapping[str, float] | None = None,
    known: Sequence[Scored] = (),
) -> Settled:
    every = [groups] if isinstance(groups, Group) else groups
    history = History(tuned=method.tuned if tuned is None else tuned)
    return asyncio.run(settle(method, every, Votes(cast), history, policy or ScriptedPolicy(), known))


def learned(made: Settled) -> dict[str, float]:
    """Learned text -> weight. Of a text that several examples hold, the sum."""
    found: dict[str, float] = {}
    for example in made.examples:
        row = example.rows[-1]
        ids = unpack_ids(row.token_ids)[-row.spans[-1].tokens : -1]
        text = bytes(token - 1 for token in ids).decode()
        found[text] = found.get(text, 0.0) + example.weight
    return found
