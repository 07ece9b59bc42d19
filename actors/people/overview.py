"""The data of the status page: the parts' statuses and the run directory as one small JSON object.

at          time of the snapshot, seconds since the epoch
slots       serve, explore, champion, candidate -> version, state, standing; None for an empty slot
versions    the newest SHOWN_VERSIONS: verdict, standing, reason, probes, agreement, accuracy with interval, monitors
held        name, reason and time of a hold; `waiting`: the version that takes effect at the release
paused      reason of a pause of learning; `disk_full`: reason why nothing can be written
tokens      totals by purpose: users, learning, gate, report
learning    fill of the buffer, agreement of votes, current work of trainer and evaluator
replicas    versions that each replica serves and has proven
events      the newest SHOWN_EVENTS as sentences
away        parts that did not answer
examples    the turns that the task puts before each question (added by the admin actor)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

from rich.text import Text

from actors.inspect.report import VersionRow, version_rows
from actors.inspect.sentences import sentence
from actors.runtime.statuses import Away, ReplicaStatus, RunStatus, VersionsStatus
from core.messages import Event
from core.store.facts import MONITORS
from core.store.writer import RunReader

SlotName = Literal["serve", "explore", "champion", "candidate"]
SLOTS: tuple[SlotName, ...] = ("serve", "explore", "champion", "candidate")
SHOWN_VERSIONS = 100
SHOWN_EVENTS = 30
READ_EVENTS = 200
"""More than SHOWN_EVENTS, because some events have no sentence."""
LONGEST_TEXT = 400
SILENT_S = 10.0
"""A replica reports every two seconds."""


class ShownVersion(TypedDict):
    version: int
    verdict: str
    standing: str
    probes: int
    agreement: float | None
    champion_agreement: float | None
    accuracy: float | None
    low: float | None
    high: float | None
    reason: str
    monitors: dict[str, float]
    """Those of MONITORS that were measured."""


class ShownEvent(TypedDict):
    id: int
    at: float
    kind: str
    text: str


class ShownSlot(TypedDict):
    version: int
    state: str
    standing: str


class PastSaid(TypedDict, total=False):
    versions: list[ShownVersion]
    events: list[ShownEvent]
    away: dict[str, str]
    """Reason why the run directory cannot be read."""


class Past:
    """Versions and events from the run directory, read again only after a new event. For one thread at a time."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._reader: RunReader | None = None
        self._seen = -1
        self._said: PastSaid = {}

    def read(self) -> PastSaid:
        """Versions and events. Raises: StoreError."""
        if self._reader is None:
            self._reader = RunReader(self._run_dir)
        newest = self._reader.newest_event()
        if newest != self._seen:
            rows = version_rows(self._reader, tokens=False)[-SHOWN_VERSIONS:]
            events = self._reader.numbered_events(newest=READ_EVENTS)
            self._said = {"versions": [version(row) for row in rows], "events": sentences(events)}
            self._seen = newest
        return self._said

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def overview(at: float, status: RunStatus, past: PastSaid) -> dict[str, object]:
    """The whole object. The fields of a part that is away are empty."""
    parts = cast(Mapping[str, Away], status)
    versions, buffer = cast(VersionsStatus, status.get("versions", {})), status.get("buffer", {})
    standings = {row["version"]: row["standing"] for row in past.get("versions", [])}
    return {
        "at": at,
        "slots": {name: slot(versions, name, standings) for name in SLOTS},
        "versions": past.get("versions", []),
        "held": versions.get("held"),
        "waiting": versions.get("waiting"),
        "paused": buffer.get("paused"),
        "disk_full": status.get("store", {}).get("full"),
        "tokens": tokens(status),
        "learning": learning(status),
        "replicas": [replica(name, said) for name, said in sorted(versions.get("replicas", {}).items())],
        "events": past.get("events", []),
        "away": {name: part["away"] for name, part in parts.items() if "away" in part} | past.get("away", {}),
    }


def slot(versions: VersionsStatus, name: SlotName, standings: Mapping[int, str]) -> ShownSlot | None:
    """`standing` is the evidence behind the verdict; empty without a verdict."""
    number = versions.get("slots", {}).get(name)
    if number is None:
        return None
    standing = "base" if number == 0 else standings.get(number, "")
    if name == "serve":
        standing = versions.get("standing", standing)
    state = "base" if number == 0 else versions.get("states", {}).get(str(number), "")
    return {"version": number, "state": state, "standing": standing}


def version(row: VersionRow) -> ShownVersion:
    return {
        "version": row.version,
        "verdict": row.verdict,
        "standing": row.standing,
        "probes": row.probes,
        "agreement": row.agreement,
        "champion_agreement": row.champion_agreement,
        "accuracy": row.accuracy,
        "low": row.low,
        "high": row.high,
        "reason": row.reason[:LONGEST_TEXT],
        "monitors": {name: round(value, 4) for name in MONITORS if (value := getattr(row, name)) is not None},
    }


def tokens(status: RunStatus) -> dict[str, float]:
    """Totals, each since the start of its part. `learning` counts prompts whose outcomes have arrived."""
    evaluator = status.get("evaluator", {}).get("tokens", {})
    return {
        "users": sum(said.get("tokens_user", 0) for said in status.get("versions", {}).get("replicas", {}).values()),
        "learning": status.get("buffer", {}).get("tokens", 0),
        "gate": evaluator.get("gate", 0),
        "report": evaluator.get("report", 0),
    }


def learning(status: RunStatus) -> dict[str, object]:
    buffer, evaluator = status.get("buffer", {}), status.get("evaluator", {})
    weighing = evaluator.get("weighing")
    share = buffer.get("vote_share")
    counts = ("waiting", "capacity", "outstanding", "lag", "windows_drawn")
    return {name: buffer.get(name) for name in counts} | {
        "vote_share": None if share is None else round(share, 3),
        "trainer": status.get("trainer", {}).get("phase"),
        "weighing": weighing and weighing["candidate"],
        "anchors": evaluator.get("anchors"),
    }


def replica(name: str, said: ReplicaStatus) -> dict[str, object]:
    kept = ("serving", "proven", "failed", "users", "background", "swaps")
    about: dict[str, object] = {"name": name, "silent": said.get("age_s", 0) > SILENT_S}
    return about | {key: said.get(key) for key in kept}


def sentences(events: Sequence[tuple[int, Event]]) -> list[ShownEvent]:
    """The same sentences as on the terminal, in plain text, newest last."""
    lines = [(number, event, sentence(event)) for number, event in events]
    shown: list[ShownEvent] = [
        {"id": number, "at": event.at, "kind": event.kind, "text": Text.from_markup(line).plain[:LONGEST_TEXT]}
        for number, event, line in lines
        if line is not None
    ]
    return shown[-SHOWN_EVENTS:]
