"""What the tests of the lineage are built from: versions, verdicts, and a lineage in which versions are proven."""

from actors.versions.lineage import Lineage
from core.messages import Decision, PolicyRef, Published
from core.store.facts import LineageFact


def ref(version: int) -> PolicyRef:
    return PolicyRef(version=version)


def version(number: int, parent: int = 0) -> Published:
    return Published(ref=ref(number), path="x", parent=ref(parent), window=number, fingerprint=str(number))


def decision(number: int, word: str, champion: int = 0) -> Decision:
    """`word` is a verdict, or "gain": a promotion that was also shown to be better."""
    gain = word == "gain"
    return Decision(
        verdict="promote" if gain else word,  # type: ignore[arg-type]
        candidate=ref(number),
        champion=ref(champion),
        reason="because",
        probes=1,
        certified=False,
        new_champion=gain,
    )


def lineage(*published: Published) -> Lineage:
    made = Lineage(base=version(0))
    for each in published:
        made.propose(each)
        made.proven(each.ref.version)
    return made


def restored(snapshot: LineageFact, before: Lineage) -> Lineage:
    """What a restart makes of a snapshot and of what `before` had written."""
    again = Lineage(base=version(0))
    again.restore(snapshot, list(before.published.values()), list(before.decisions.values()))
    return again
