"""Finds everything that came from one voter, so that it can be removed: row ids by table, prompts to settle again, and
the versions that learned from it. Those versions keep what they have learned."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.replay.late_votes import first_vote_key
from core.messages import Feedback, Outcome, Response, Vote
from core.store.facts import FirstVote
from core.store.reader import RunReader
from methods.ballot import account


@dataclass
class Traces:
    ids: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Table -> ids of the rows to remove."""
    prompts: list[str] = field(default_factory=list[str])
    """Prompts whose ballot holds a vote of this voter."""
    versions: list[int] = field(default_factory=list[int])
    """Versions trained on a window with such a ballot, and their descendants."""


def is_of(voter: str, name: str) -> bool:
    """Whether the voter is `name`, or a user of the key `name`."""
    return voter == name or account(voter) == name


def traces(reader: RunReader, name: str, voted: Sequence[str]) -> Traces:
    """`voted`: all prompts that people voted on."""
    found = Traces(ids={"votes": [], "feedback": [], "responses": [], "resettled": []})
    found.ids["facts"] = [FirstVote.cleared(first_vote_key(prompt, name)).id for prompt in voted]
    places: list[str] = []
    for prompt in voted:
        cast = [v for v in reader.children("votes", Vote, prompt) if v.by != "sample" and is_of(v.voter, name)]
        found.ids["votes"] += [vote.id for vote in cast]
        if any(vote.counted for vote in cast):
            found.prompts.append(prompt)
            places += reader.ids("outcomes", prompt)
    # delete results that used these votes, or they would stand against a new result with fewer votes
    found.ids["resettled"] = [id for place in places for id in reader.ids("resettled", place)]
    found.ids["feedback"] = [f.id for f in reader.all("feedback", Feedback) if is_of(f.voter, name)]
    found.ids["responses"] = [r.id for r in reader.all("responses", Response) if is_of(asker(r), name)]
    found.versions = _learned(reader, set(found.prompts))
    return found


def asker(response: Response) -> str:
    """The voter name of the user who got this response."""
    return f"{response.key}/{response.user}" if response.key and response.user else response.key or response.user


def _learned(reader: RunReader, prompts: set[str]) -> list[int]:
    of = {number for number, places in reader.windows().items() if any(_prompt(reader, p) in prompts for p in places)}
    learned: set[int] = set()
    for published in reader.versions():  # parents come first
        if published.window in of or published.parent.version in learned:
            learned.add(published.ref.version)
    return sorted(learned)


def _prompt(reader: RunReader, place: int) -> str | None:
    outcome = reader.get("outcomes", Outcome, str(place))
    return outcome.prompt_id if outcome is not None else None
