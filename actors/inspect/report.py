"""The report of a run: report.json, report.md and a plot, from the store alone. Works on a stopped run too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from actors.inspect.task_changes import TaskChange, changes
from core.config import Config, Lora
from core.messages import Decision, Event, Outcome, Published
from core.shipped import PROGRAM
from core.store.facts import MONITORS, FinalMeasured, LineageFact, Measured, OtherMeasured
from core.store.writer import RunReader


@dataclass(frozen=True)
class VersionRow:
    version: int
    verdict: str
    """base, undecided, promote, reject or hold; `rolled back` if it was promoted or held and is now withdrawn."""
    standing: str
    """The evidence behind the verdict: certified (answer keys), guarded (anchors), by hand, unweighed; empty without a
    verdict."""
    reason: str
    probes: int
    agreement: float | None
    champion_agreement: float | None
    """The champion's agreement on the same probes."""
    accuracy: float | None
    low: float | None
    high: float | None
    tokens: int
    """Tokens that collectors had generated when the version's training began."""
    flexible_ratio: float | None = None
    """As in `core.store.facts.Measured`; likewise below."""
    entropy_nats: float | None = None
    distinct_2_ratio: float | None = None
    sampled_ratio: float | None = None
    pass_n_ratio: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None


SHOWN = {*MONITORS, "gap_low", "gap_high"}
"""Fields of `Measured` that a row takes as they are."""


class ReportBody(TypedDict):
    """report.json."""

    accuracy_start: float | None
    accuracy_end: float | None
    accuracy_n: int
    served: int | None
    tokens_generated: int
    tokens_evaluated: int
    wall_s: float
    cpu_s: float | None
    """CPU-seconds of all processes of this machine, since the last start. None in old reports."""
    first_answer_s: float
    engine: str
    method: str
    seed: int
    gate: str
    """certified, guarded, or off."""
    other_tasks: list[TaskChange]
    """Of the served version, on tasks that the run does not learn."""
    better_held: int | None
    """The held version with the highest accuracy, if that is above the served one's of the same questions."""
    versions: list[dict[str, object]]


def version_rows(reader: RunReader, tokens: bool = True) -> list[VersionRow]:
    """Version 0 and every published version, in order. `tokens` reads every outcome of the run."""
    decisions = {d.candidate.version: d for d in reader.all("decisions", Decision)}
    measured = {int(version): found for version, found in reader.read_all(Measured).items()}
    spent = _tokens_by_version(reader.events("training"), reader) if tokens else {}
    versions = [0, *(p.ref.version for p in reader.all("versions", Published))]
    rows = [_row(v, decisions.get(v), measured.get(v), spent.get(v, 0)) for v in versions]
    return _as_it_stands(rows, reader.read(LineageFact) or LineageFact())


def _as_it_stands(rows: list[VersionRow], lineage: LineageFact) -> list[VersionRow]:
    """Apply later changes to the gate's decisions: rollbacks, and promotions by hand."""
    standing: list[VersionRow] = []
    for row in rows:
        if row.version in lineage.by_hand:
            row = replace(row, verdict="promote", standing="by hand")
        elif lineage.states.get(row.version) == "rolled_back":
            row = replace(row, verdict="rolled back")
        standing.append(row)
    return standing


def has_questions(config: Config) -> bool:
    return config.report.questions is not None and Path(config.report.questions).is_file()


def write(
    run_dir: Path, config: Config, timing: dict[str, float], tokens_generated: float, tokens_evaluated: float
) -> ReportBody:
    """Write all three files; returns the content of report.json."""
    reader = RunReader(run_dir)
    rows = version_rows(reader)
    start, end = reader.read(FinalMeasured, "start"), reader.read(FinalMeasured, "end")
    others, lineage = list(reader.read_all(OtherMeasured).values()), reader.read(LineageFact) or LineageFact()
    reader.close()
    body: ReportBody = {
        "accuracy_start": start.accuracy if start else None,
        "accuracy_end": end.accuracy if end else None,
        "accuracy_n": start.n if start else 0,
        "served": end.version if end else None,
        "tokens_generated": int(tokens_generated),
        "tokens_evaluated": int(tokens_evaluated),
        "wall_s": timing["wall_s"],
        "cpu_s": timing.get("cpu_s"),
        "first_answer_s": timing["first_answer_s"],
        "engine": "vllm " + ("lora" if isinstance(config.model.weights, Lora) else "full"),
        "method": config.method.recipe,
        "seed": config.run.seed,
        "gate": "off" if not config.gate.enabled else "certified" if config.gate.keys else "guarded",
        "other_tasks": changes(others, lineage.serve),
        "better_held": held.version if (held := better_held(rows, end.version if end else 0)) else None,
        "versions": [vars(row) for row in rows],
    }
    (run_dir / "report.json").write_text(json.dumps(body, indent=1))
    _plot(run_dir / "report.png", rows)
    (run_dir / "report.md").write_text(_markdown(body, rows))
    return body


def better_held(rows: Sequence[VersionRow], served: int) -> VersionRow | None:
    """The held version with the highest accuracy, if that is above the served version's on the same questions."""
    at_service = next((row.accuracy for row in rows if row.version == served), None)
    held = max((row for row in rows if row.verdict == "hold"), key=lambda row: row.accuracy or 0.0, default=None)
    return held if held and at_service is not None and (held.accuracy or 0.0) > at_service else None


def held_sentence(rows: Sequence[VersionRow], body: ReportBody) -> str | None:
    """What to do about a better version that the gate holds."""
    row = next((row for row in rows if row.version == body["better_held"]), None)
    if row is None:
        return None
    return (
        f"v{row.version} reached {_percent(row.accuracy)} and is held, so it is not served: {row.reason}. "
        f"To try it while the run lives: {PROGRAM} ask --version policy@v{row.version} QUESTION (admins). "
        f"To serve it all the same: {PROGRAM} promote v{row.version} --reason WHY"
    )


def change_sentence(change: TaskChange) -> str:
    """What the served version keeps of a task that the run does not learn."""
    moved = f"{100 * change['change']:+.1f} points (95%: {100 * change['low']:+.1f} to {100 * change['high']:+.1f})"
    rates = f"{_percent(change['before'])} -> {_percent(change['after'])} of {change['n']} questions"
    return f"not learned: {change['task']} {rates}, {moved}"


def _row(version: int, decision: Decision | None, measured: Measured | None, tokens: int) -> VersionRow:
    return VersionRow(
        version=version,
        verdict="base" if version == 0 else decision.verdict if decision else "undecided",
        standing=decision.standing if decision and (decision.probes or decision.by != "gate") else "",
        reason=decision.reason if decision else "",
        probes=decision.probes if decision else 0,
        agreement=decision.candidate_rate if decision and decision.probes else None,
        champion_agreement=decision.champion_rate if decision and decision.probes else None,
        accuracy=measured.accuracy if measured else None,
        low=measured.low if measured else None,
        high=measured.high if measured else None,
        tokens=tokens,
        **(measured.model_dump(include=SHOWN) if measured else {}),
    )


def _tokens_by_version(trainings: Sequence[Event], reader: RunReader) -> dict[int, int]:
    """Version -> tokens of the outcomes in all windows up to the one that it was trained on."""
    spent = {outcome.place: outcome.tokens for outcome in reader.all("outcomes", Outcome)}
    tokens: dict[int, int] = {}
    total = 0
    windows = reader.windows()
    by_window = {int(e.detail["window"]): int(e.detail["version"]) for e in trainings}
    for number in sorted(windows):
        total += sum(spent.get(place, 0) for place in windows[number])
        if number in by_window:
            tokens[by_window[number]] = total
    return tokens


def monitored(row: VersionRow) -> tuple[str, str, str]:
    """Accuracy in any format, entropy of the answers and distinct-2, for people."""
    entropy, distinct = row.entropy_nats, row.distinct_2_ratio
    return _percent(row.flexible_ratio), "-" if entropy is None else f"{entropy:.2f}", _percent(distinct)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _markdown(body: ReportBody, rows: Sequence[VersionRow]) -> str:
    lines = [
        f"# Ratchet: {body['method']}, seed {body['seed']}",
        "",
        f"Accuracy {_percent(body['accuracy_start'])} -> {_percent(body['accuracy_end'])} "
        f"on {body['accuracy_n']} questions that the gate and the trainer never see.",
        f"Tokens: {body['tokens_generated']} by collectors, {body['tokens_evaluated']} by gate and report. "
        f"{body['wall_s']:.0f} s in all. Promotions are {body['gate']}.",
        *map(change_sentence, body["other_tasks"]),
        *([held] if (held := held_sentence(rows, body)) else []),
        "",
        *_gaps(rows),
        "![accuracy by version and by tokens](report.png)",
        "",
        "| version | verdict | standing | probes | agreement | accuracy | 95% interval | in any format | "
        "answer entropy (nats) | distinct-2 | tokens | reason |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f"{_percent(row.low)} - {_percent(row.high)}" if row.low is not None else "-"
        lines.append(
            f"| v{row.version} | {row.verdict} | {row.standing} | {row.probes} | {_percent(row.agreement)} "
            f"| {_percent(row.accuracy)} | {interval} | {' | '.join(monitored(row))} | {row.tokens} | {row.reason} |"
        )
    return "\n".join(lines) + "\n"


def _gaps(rows: Sequence[VersionRow]) -> list[str]:
    """The generation-verification gap of the versions that were sampled, as a table."""
    lines = [
        f"| v{row.version} | {_percent(row.sampled_ratio)} | {_percent(row.pass_n_ratio)} "
        f"| {100 * row.gap:.1f} ({100 * row.gap_low:.1f} to {100 * row.gap_high:.1f}) |"
        for row in rows
        if row.gap is not None and row.gap_low is not None and row.gap_high is not None
    ]
    if not lines:
        return []
    headings = "| version | right samples | questions with a right sample | gap of the vote, points (95%) |"
    return [headings, "|---|---|---|---|", *lines, ""]


def _plot(path: Path, rows: Sequence[VersionRow]) -> None:
    import matplotlib  # imported here because the import takes a second

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colors = {"promote": "tab:green", "reject": "tab:red", "hold": "tab:orange", "base": "tab:blue"}
    colors["rolled back"] = "tab:purple"
    known = [row for row in rows if row.accuracy is not None]
    figure, (by_version, by_tokens) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axes, at in ((by_version, lambda r: r.version), (by_tokens, lambda r: r.tokens / 1000)):
        axes.plot([at(r) for r in known], [r.accuracy for r in known], color="lightgrey", zorder=1)
        for row in known:
            color = colors.get(row.verdict, "tab:grey")
            rate, low, high = row.accuracy or 0.0, row.low or 0.0, row.high or 0.0
            axes.errorbar([at(row)], [rate], yerr=[[rate - low], [high - rate]], fmt="o", color=color, capsize=2)
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 1)
    by_version.set_xlabel("version")
    by_tokens.set_xlabel("collector tokens (thousands)")
    by_version.set_ylabel("accuracy, 95% interval")
    for verdict, color in colors.items():
        by_tokens.plot([], [], "o", color=color, label=verdict)
    by_tokens.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
