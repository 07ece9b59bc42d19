"""Groups that are worked by hand, and what a recipe makes of them."""

import asyncio
from collections.abc import Sequence

from core import config as configuration
from core.codec import pack_floats, pack_ids, stable_id
from core.messages import Candidate, Example, Finish, Group, PolicyRef, Prompt, Scored, Vote
from core.protocols import History, Method, Votes
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import NO_HISTORY, Settled, settle
from methods.scripted_policy import ScriptedPolicy

PROMPT = as_prompt("Ann has 3 apples and 4 pears. How many fruits are there?")


def method(recipe: str, *options: str) -> Method:
    """The recipe, with what its card overrides."""
    overrides = [f"method.recipe={recipe}", "method.votes.quorum=1", "method.answer.kind=text"]
    return recipes.build(configuration.load(None, [*overrides, *recipes.card(recipe).overrides, *options]).method)


def candidate(
    text: str, name: str, *, finish: Finish = "stop", nats: Sequence[float] = (), version: int = 0
) -> Candidate:
    """`nats`: the log-probability of each token. Without them every byte is a token."""
    ids = pack_ids([int(stable_id(text)[:4], 16)] * len(nats) if nats else [byte + 1 for byte in text.encode()])
    ref = PolicyRef(version=version)
    return Candidate(
        id=name,
        start=ref,
        end=ref,
        context_ids=pack_ids([1, 2]),
        completion_ids=ids,
        text=text,
        logprobs=pack_floats(nats),
        finish=finish,
        render_id="r",
    )


def group(
    *texts: str,
    name: str = "g",
    version: int = 0,
    fixed: bool = False,
    prompt: Prompt = PROMPT,
    cut: Sequence[int] = (),
) -> Group:
    """`cut`: the places of candidates that were cut off."""
    finish: list[Finish] = ["length" if place in cut else "stop" for place in range(len(texts))]
    made = [
        candidate(text, f"{name}-{place}", finish=finish[place], version=version) for place, text in enumerate(texts)
    ]
    return Group(id=name, prompt=prompt, candidates=tuple(made), fixed=fixed)


def settled(
    made: Method,
    *groups: Group,
    votes: Sequence[Vote] = (),
    earlier: Sequence[Scored] = (),
    history: History = NO_HISTORY,
    policy: ScriptedPolicy | None = None,
) -> Settled:
    history = History(earlier=tuple(earlier), tuned=history.tuned or made.tuned)
    return asyncio.run(settle(made, groups, Votes(tuple(votes)), history, policy or ScriptedPolicy()))


def texts(example: Example, *groups: Group) -> list[str]:
    """The texts of an example's rows."""
    known = {c.context_ids + c.completion_ids: c.text for one in groups for c in one.candidates}
    return [known[row.token_ids] for row in example.rows]


def correction(text: str) -> Vote:
    return Vote(id="text", prompt_id=PROMPT.id, by="person", voter="cid", correction=text, cast_at=1.0)
