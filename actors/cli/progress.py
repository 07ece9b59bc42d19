"""Output of a run on the terminal: one line per event, and below them the live state of the run."""

import os
import time
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from actors.inspect.report import VersionRow, monitored, version_rows
from actors.inspect.sentences import STYLES, sentence
from actors.runtime.statuses import CollectorStatus, RunStatus
from core.config import RunConfig
from core.errors import StoreError
from core.store.writer import RunReader

SHOWN_VERSIONS = 8


class LastingOutput:
    """A stream that a run can always print to. Once it cannot be written (its pipe is closed, its terminal is gone, its
    disk is full), everything goes to /dev/null and the run goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._let_go()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        """The file descriptor itself, so that what is still buffered, and all others who print to it, fail no more."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Progress:
    """Call `show` with a new status about every second."""

    def __init__(self, run_dir: Path, url: str, console: Console) -> None:
        self._reader = RunReader(run_dir)
        self._url = url
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._events_seen = len(self._reader.events())  # do not print the events of before a resume again
        self._table: Table | None = None
        self._rows: list[VersionRow] = []
        self._before: tuple[float, dict[str, float]] | None = None
        self._rates: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._reader.close()

    def show(self, status: RunStatus) -> None:
        try:
            events = self._reader.events(after=self._events_seen)
        except StoreError:
            events = []
        self._events_seen += len(events)
        if events or self._table is None:
            self._rows = version_rows(self._reader)
            self._table = versions_table(self._rows[-SHOWN_VERSIONS:])
        for event in events:
            line = sentence(event)
            if line is not None:
                self._console.print(Text.from_markup(f"[dim]{_clock(event.at)}[/] {line}"))
        self._rates = self._tokens_per_s(status)
        if self._live is not None:
            self._live.update(Group(self._table, Text(self.line(status))))

    def spent(self, budget: RunConfig) -> bool:
        """Whether a decided candidate has reached the budget of tokens."""
        decided = (row.tokens for row in self._rows if row.verdict not in ("base", "undecided"))
        return budget.tokens is not None and max(decided, default=0) >= budget.tokens

    def line(self, status: RunStatus) -> str:
        """The run in one line."""
        slots = status.get("versions", {}).get("slots", {})
        buffer = status.get("buffer", {})
        replicas = status.get("versions", {}).get("replicas", {}).values()
        share = buffer.get("vote_share")
        rates = "  ".join(f"{who} {rate:.0f}" for who, rate in self._rates.items())
        parts = [
            f"serve v{slots.get('serve', 0)} ({status.get('versions', {}).get('standing', 'base')})",
            f"explore v{slots.get('explore', 0)}  champion v{slots.get('champion', 0)}",
            f"tokens/s: {rates}",
            f"vote agreement {share:.2f}" if share is not None else "no votes yet",
            f"lag {buffer.get('lag', 0)}, swaps {sum(r.get('swaps', 0) for r in replicas):.0f}",
            f"buffer {buffer.get('waiting', 0)} waiting, {buffer.get('outstanding', 0)} leased",
            f"trainer {status.get('trainer', {}).get('phase', '-')}",
        ]
        anchors = status.get("evaluator", {}).get("anchors")
        if anchors:
            parts.append(f"anchors {anchors['answered']} of {anchors['questions']}")
        held = status.get("versions", {}).get("held")
        if held:
            parts.append(f"HELD by {held['by']}: {held['why']}; `ratchet hold --off` ends the hold")
        if buffer.get("paused"):
            parts.append(f"PAUSED: {buffer['paused']}; `ratchet resume` resumes it")
        return f"{self._url}   " + " | ".join(parts)

    def _tokens_per_s(self, status: RunStatus) -> dict[str, float]:
        now, totals = time.monotonic(), tokens_by_purpose(status)
        if self._before is None:
            self._before = (now, totals)
            return dict.fromkeys(totals, 0.0)
        then, before = self._before
        self._before = (now, totals)
        return {who: max(0.0, totals[who] - before.get(who, 0.0)) / max(now - then, 1e-3) for who in totals}


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def tokens_by_purpose(status: RunStatus) -> dict[str, float]:
    """Totals so far for users, explore and gate; gate includes the report."""
    replicas = status.get("versions", {}).get("replicas", {}).values()
    collectors = [cast(CollectorStatus, part) for name, part in status.items() if name.startswith("collector")]
    evaluator = status.get("evaluator", {}).get("tokens", {})
    return {
        "users": sum(replica.get("tokens_user", 0) for replica in replicas),
        "explore": sum(sum(part.get("tokens", {}).values()) for part in collectors),
        "gate": evaluator.get("gate", 0) + evaluator.get("report", 0),
    }


def versions_table(rows: list[VersionRow], monitors: bool = False) -> Table:
    """`monitors`: also what reports tell of the format and the diversity of answers."""
    table = Table(box=None, pad_edge=False)
    watched = ("any format", "entropy", "distinct-2") if monitors else ()
    headings = ("version", "verdict", "standing", "probes", "agreement", "accuracy (95%)", *watched, "tokens", "why")
    for heading in headings:
        table.add_column(heading, overflow="ellipsis", no_wrap=heading == "why", max_width=60)
    for row in rows:
        agreement = "" if row.agreement is None else f"{100 * row.agreement:.1f}%"
        accuracy = ""
        if row.accuracy is not None and row.low is not None and row.high is not None:
            accuracy = f"{100 * row.accuracy:.1f}% ({100 * row.low:.0f}-{100 * row.high:.0f})"
        style = STYLES.get(row.verdict, "dim")
        cells = (f"v{row.version}", Text(row.verdict, style), row.standing, str(row.probes or ""))
        table.add_row(
            *cells, agreement, accuracy, *(monitored(row) if monitors else ()), str(row.tokens), Text(row.reason)
        )
    return table
