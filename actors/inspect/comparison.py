"""Compares recipes by finished runs over several seeds: the tables, and the page around them.

Figures of three runs or more are a mean with its 95% interval (Student's t); of fewer, the figures themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.inspect.served import (
    Mistakes,
    history,
    measured_hits,
    mistakes,
    served_hits,
    served_over_tokens,
    worst_drop,
)
from core.store.facts import FinalMeasured
from core.store.writer import RunReader
from training.gate.statistics import mean_interval

FEWEST_FOR_INTERVAL = 3


@dataclass(frozen=True)
class RunSummary:
    """One finished run."""

    before: float | None
    """Greedy accuracy of the base on the report's questions; likewise `after`, of the version served at the end."""
    after: float | None
    tokens: int
    cpu_s: float | None
    agreement: float | None
    """Share of the gate's probes that the version served at the end got right when it was weighed."""
    drop: float
    """The largest drop of a served version from the best one before: lower 95% paired bound."""
    drop_seen: float
    """The same as measured."""
    verdicts: str
    """p, r or h for each candidate: promote, reject, hold; u: undecided."""
    promoted: int
    refused: int
    """Candidates with a verdict of their own that were not promoted."""
    mistakes: Mistakes
    gated: bool
    entropy_before_nats: float | None
    """Entropy of the answers across questions."""
    entropy_nats: float | None
    distinct_2_ratio: float | None
    curve: list[tuple[int, float]]
    """Sampled tokens, and the accuracy of what is served from there on."""


@dataclass
class Compared:
    """All runs of one recipe, or of its control."""

    name: str
    control_of: str | None
    settings: tuple[str, ...]
    runs: dict[int, RunSummary] = field(default_factory=dict[int, RunSummary])
    """By seed."""
    failures: dict[int, str] = field(default_factory=dict[int, str])


def summarize(folder: Path, body: Mapping[str, Any]) -> RunSummary:
    """`body`: the run's report.json."""
    reader = RunReader(folder)
    start, end = reader.read(FinalMeasured, "start"), reader.read(FinalMeasured, "end")
    reader.close()
    rows = {int(row["version"]): row for row in body["versions"]}
    accuracy = {version: sum(hits) / max(1, len(hits)) for version, hits in measured_hits(folder).items()}
    judged, (drop, seen) = history(folder), worst_drop(served_hits(folder))
    return RunSummary(
        before=body["accuracy_start"],
        after=body["accuracy_end"],
        tokens=body["tokens_generated"],
        cpu_s=body.get("cpu_s"),
        agreement=rows.get(body["served"], {}).get("agreement"),
        drop=drop,
        drop_seen=seen,
        verdicts="".join(row["verdict"][0] for version, row in sorted(rows.items()) if version),
        promoted=sum(each.promoted for each in judged),
        refused=sum(not each.promoted for each in judged),
        mistakes=mistakes(judged, accuracy),
        gated=body["gate"] != "off",
        entropy_before_nats=start.entropy_nats if start else None,
        entropy_nats=end.entropy_nats if end else None,
        distinct_2_ratio=end.distinct_2_ratio if end else None,
        curve=served_over_tokens(judged, {version: row["tokens"] for version, row in rows.items()}, accuracy),
    )


def spread(values: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """Mean and 95% interval; the values themselves if there are few; - without any."""
    known = [value for value in values if value is not None]
    if len(known) < FEWEST_FOR_INTERVAL:
        return ", ".join(map(shown, known)) or "-"
    mean, low, high = map(shown, mean_interval(known))
    return f"{mean} ({low} to {high})"


def gains(compared: Compared, control: Compared | None) -> list[float]:
    """Accuracy at the end beyond that of the control, seed by seed."""
    theirs = control.runs if control else {}
    pairs = [(run.after, theirs[seed].after) for seed, run in sorted(compared.runs.items()) if seed in theirs]
    return [ours - other for ours, other in pairs if ours is not None and other is not None]


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headings and rows."""


def outcomes(found: Sequence[Compared]) -> Table:
    """What each recipe gains, and at what cost."""
    controls = {each.control_of: each for each in found if each.control_of}
    headings = ("recipe", "seeds", "accuracy before", "served after", "above its control", "sampled tokens", "CPU-s")
    rows: list[tuple[str, ...]] = []
    for each in found:
        runs = _runs(each)
        rows.append(
            (
                label(each),
                f"{len(runs)}" + (f", {len(each.failures)} failed" if each.failures else ""),
                spread([run.before for run in runs], _percent),
                spread([run.after for run in runs], _percent),
                spread(gains(each, controls.get(each.name)), _points) if each.control_of is None else "",
                spread([run.tokens for run in runs], lambda tokens: f"{tokens / 1e6:.3f}M"),
                spread([run.cpu_s for run in runs], lambda seconds: f"{seconds:.0f}"),
            )
        )
    return headings, rows


def safety(found: Sequence[Compared]) -> Table:
    """What users were spared, and how alike answers became."""
    headings = (
        "recipe",
        "verdicts by seed",
        "false promotions",
        "missed promotions",
        "worst drop served: bound, seen",
        "anchor agreement",
        "answer entropy (nats): before, after",
        "distinct-2",
    )
    rows: list[tuple[str, ...]] = []
    for each in found:
        runs = _runs(each)
        gated = [run for run in runs if run.gated]
        promoted, refused = sum(run.promoted for run in gated), sum(run.refused for run in gated)
        false = sum(run.mistakes.false_promotions for run in gated)
        missed = sum(run.mistakes.missed_promotions for run in gated)
        drops = [f"{max(drops):.1%}" for drops in ([r.drop for r in runs], [r.drop_seen for r in runs]) if drops]
        entropies = ([run.entropy_before_nats for run in runs], [run.entropy_nats for run in runs])
        rows.append(
            (
                label(each),
                " ".join(run.verdicts or "none" for run in runs) or "-",
                f"{false} of {promoted}" if gated else "no gate",
                f"{missed} of {refused}" if gated else "no gate",
                ", ".join(drops) or "-",
                spread([run.agreement for run in runs], _percent),
                ", ".join(spread(values, lambda nats: f"{nats:.2f}") for values in entropies),
                spread([run.distinct_2_ratio for run in runs], _percent),
            )
        )
    return headings, rows


def label(compared: Compared) -> str:
    return compared.name if compared.control_of is None else f"control of {compared.control_of}: {compared.name}"


def markdown(table: Table) -> str:
    headings, rows = table
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, ("---",) * len(headings), *rows))


PAGE = """# Recipes compared

Each recipe and its null control start from the same base, with the same prompts. This page is written by

```
{command}
```

{conditions}

Accuracy is greedy, on questions that neither gate nor trainer sees. Figures of three seeds or more are a mean with its
95% interval over seeds (Student's t); of fewer, one figure a seed. Controls run without a gate, so that their last
version is served.

## What each gains

{outcomes}
`above its control` is the difference of `served after`, paired by seed, in points.

![accuracy of the served version over sampled tokens]({plot})

Lines are means over seeds, bands reach from the lowest seed to the highest. After its last version a run keeps its
accuracy.

## What users got

{safety}
Verdicts: p promoted, r rejected or rolled back, h held, u undecided. A promotion is false if the version's accuracy is
below that of the version served before, and missed if it is above that and the version was not promoted: as measured,
so chance alone makes some of each. The worst drop is over all seeds, from the best version served before: the lower 95%
paired bound, and as measured. Anchor agreement is that of the version served at the end; entropy is of its answers
across questions, distinct-2 of its texts.

## Settings

{settings}
"""


def page(found: Sequence[Compared], command: str, conditions: Mapping[str, object], plot: str) -> str:
    """A page in Markdown. `plot`: the file of the plot, beside the page."""
    failed = [f"- {label(each)}, seed {seed}: {why}" for each in found for seed, why in sorted(each.failures.items())]
    text = PAGE.format(
        command=command,
        conditions="\n".join(f"- {name}: {value}" for name, value in conditions.items()),
        outcomes=markdown(outcomes(found)),
        plot=plot,
        safety=markdown(safety(found)),
        settings="\n".join(f"- {label(each)}: `{' '.join(each.settings)}`" for each in found),
    )
    return text + ("\n## Runs that failed\n\n" + "\n".join(failed) + "\n" if failed else "")


def _runs(compared: Compared) -> list[RunSummary]:
    return [compared.runs[seed] for seed in sorted(compared.runs)]


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
