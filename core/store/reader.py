"""Reads the store of a run, whether its writer is running or not."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.messages import Event, Example, Outcome, Prompt, Published, Scored
from core.store.facts import Answers, Fact, WindowDrawn
from core.store.rows import F, M, Rows
from core.store.schema import known


class RunReader(Rows):
    """Reads a run, running or stopped, without blocking its writer. Raises: StoreError for unreadable data."""

    def all(self, table: str, kind: type[M]) -> Iterator[M]:
        """Every record of a table, oldest first."""
        for _, id, payload in self._rows(f"SELECT seq, id, payload FROM {known(table)} ORDER BY seq"):
            yield self._decoded(kind, table, id, payload)

    def children(self, table: str, kind: type[M], parent: str) -> list[M]:
        """The records of one parent, oldest first."""
        rows = self._rows(f"SELECT seq, id, payload FROM {known(table)} WHERE parent = ? ORDER BY seq", parent)
        return [self._decoded(kind, table, id, payload) for _, id, payload in rows]

    def page(self, table: str, kind: type[M], parent: str, after: int, limit: int) -> list[tuple[int, M]]:
        """At most `limit` records of a parent with a number above `after`, each with its number, oldest first."""
        query = f"SELECT seq, id, payload FROM {known(table)} WHERE parent = ? AND seq > ? ORDER BY seq LIMIT ?"
        rows = list(self._rows(query, parent, after, limit)) if self._schema >= 3 else []
        return [(int(seq), self._decoded(kind, table, id, payload)) for seq, id, payload in rows]

    def unexplored_requests(self) -> list[Prompt]:
        """Prompts that a person asked and that are not explored yet, oldest first."""
        explored = "SELECT 1 FROM outcomes WHERE outcomes.parent = asked.id"
        query = f"SELECT seq, id, payload FROM asked WHERE NOT EXISTS ({explored}) ORDER BY seq"
        rows = list(self._rows(query)) if self._schema >= 3 else []
        return [self._decoded(Prompt, "asked", id, payload) for _, id, payload in rows]

    def ids(self, table: str, parent: str | None = None) -> list[str]:
        """Ids of all records of a table, or of one parent's records, oldest first."""
        where, values = ("", ()) if parent is None else ("WHERE parent = ?", (parent,))
        rows = self._rows(f"SELECT seq, id FROM {known(table)} {where} ORDER BY seq", *values)
        return [str(id) for _, id in rows]

    def has(self, row: tuple[str, str, str, bytes]) -> bool:
        """Whether the table holds this id with this payload."""
        table, id, _, payload = row
        return any(self._rows(f"SELECT 1 FROM {known(table)} WHERE id = ? AND payload = ?", id, payload))

    def which(self, table: str, ids: Sequence[str]) -> set[str]:
        """The subset of these ids that the table holds."""
        query = f"SELECT id FROM {known(table)} WHERE id IN (SELECT value FROM json_each(?))"
        return {str(id) for (id,) in self._rows(query, json.dumps(list(ids)))}

    def outcomes(self) -> Iterator[Outcome]:
        """Every outcome as delivered, oldest first; without votes and without forgotten groups."""
        for brief in self.all("outcomes", Outcome):
            yield self._whole(brief)

    def outcome(self, place: int) -> Outcome | None:
        """One outcome with the examples of the last time it was settled; without votes."""
        brief = self.get("outcomes", Outcome, str(place))
        if brief is None:
            return None
        whole = self._whole(brief)
        again = self.children("resettled", Outcome, str(place)) if self._schema >= 2 else []
        if not again or not whole.scored:  # never resettled, or forgotten
            return whole
        newest = max(again, key=lambda settled: settled.revision)
        names = ("examples", "drops", "revision")
        return whole.model_copy(update={name: getattr(newest, name) for name in names})

    def briefs(self, after_place: int | None = None) -> Iterator[Outcome]:
        """Outcomes without groups, votes and examples, oldest first; only those stored after that of `after_place`."""
        after = next(self._rows("SELECT seq FROM outcomes WHERE id = ?", str(after_place)), (0,))[0]
        rows = list(self._rows("SELECT seq, id, payload FROM outcomes WHERE seq > ? ORDER BY seq", after))
        for _, id, payload in rows:
            yield self._decoded(Outcome, "outcomes", id, payload)

    def _whole(self, brief: Outcome) -> Outcome:
        kept = self.children("groups", Scored, str(brief.place))
        if brief.group_ids is not None:  # if a place was explored twice, it also has groups of the unused outcome
            kept = [scored for scored in kept if scored.group.id in brief.group_ids]
        examples = tuple(e for s in kept for e in self.children("examples", Example, s.group.id))
        return brief.model_copy(update={"scored": tuple(kept), "examples": examples})

    def places_held(self) -> set[int]:
        """Places that still have groups."""
        return {self._int(place) for (place,) in self._rows("SELECT DISTINCT parent FROM groups")}

    def get(self, table: str, kind: type[M], id: str) -> M | None:
        rows = list(self._rows(f"SELECT payload FROM {known(table)} WHERE id = ?", id))
        return self._decoded(kind, table, id, rows[0][0]) if rows else None

    def count(self, table: str) -> int:
        return sum(int(n) for (n,) in self._rows(f"SELECT count(*) FROM {known(table)}"))

    def read(self, kind: type[F], key: object = "") -> F | None:
        """A fact; None if it was never written, or was cleared."""
        name = f"{kind.NAME}{key}"
        rows = list(self._rows("SELECT value FROM facts WHERE id = ?", name))
        return self._fact(kind, name, rows[0][0]) if rows else None

    def read_all(self, kind: type[F]) -> dict[str, F]:
        """All facts of a kind with keys, by key, in no order."""
        first, end = kind.NAME, kind.NAME + "\U0010ffff"
        rows = self._rows("SELECT id, value FROM facts WHERE id >= ? AND id < ?", first, end)
        found = {id.removeprefix(first): self._fact(kind, id, value) for id, value in rows}
        return {key: fact for key, fact in found.items() if fact is not None}

    def keys(self, kind: type[Fact | Answers]) -> list[str]:
        """Keys of all facts of a kind, cleared ones included; does not read the values."""
        first, end = kind.NAME, kind.NAME + "\U0010ffff"
        rows = self._rows("SELECT id FROM facts WHERE id >= ? AND id < ?", first, end)
        return [str(id).removeprefix(first) for (id,) in rows]

    def windows(self) -> dict[int, list[int]]:
        """Every drawn window -> its new places."""
        return {int(number): list(drawn.places) for number, drawn in self.read_all(WindowDrawn).items()}

    def events(self, *kinds: str, after: int = 0, newest: int | None = None) -> list[Event]:
        """Events, oldest first. `kinds` and `newest` restrict them to these kinds and to this many of the newest."""
        return [event for _, event in self.numbered_events(*kinds, after=after, newest=newest)]

    def numbered_events(self, *kinds: str, after: int = 0, newest: int | None = None) -> list[tuple[int, Event]]:
        """The same events, each with its number in the run's history, from 1."""
        where = f"AND kind IN ({','.join('?' * len(kinds))})" if kinds else ""
        rows = list(
            self._rows(
                f"SELECT seq, at, actor, kind, detail FROM events WHERE seq > ? {where} ORDER BY seq DESC LIMIT ?",
                after,
                *kinds,
                -1 if newest is None else newest,
            )
        )
        return [(row[0], self._event(*row)) for row in rows[::-1]]

    def newest_event(self) -> int:
        """The number of the newest event; 0 if there is none."""
        return next(self._rows("SELECT coalesce(max(seq), 0) FROM events"))[0]

    def versions(self) -> list[Published]:
        """All published versions, with paths in this run directory if their folders lie in it."""
        return [here(published, self._run_dir) for published in self.all("versions", Published)]


def here(published: Published, run_dir: Path) -> Published:
    """The version with its path corrected: after the run directory was moved or restored, the stored path is wrong."""
    folder = (run_dir / "versions" / Path(published.path).name).absolute()
    if folder.is_dir() and Path(published.path).parent.name == "versions":
        return published.model_copy(update={"path": str(folder)})
    return published
