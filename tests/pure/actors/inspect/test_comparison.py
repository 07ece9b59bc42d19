"""What a comparison says of finished runs, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.inspect.comparison import Compared, RunSummary, gains, outcomes, page, safety, spread, summarize
from actors.inspect.comparison_plot import at, draw, together
from actors.inspect.served import Mistakes
from core.store.facts import FinalMeasured
from core.store.writer import RunStore
from tests.pure.bench.run_directories import hits, run_directory

RUN = RunSummary(
    before=0.4,
    after=0.5,
    tokens=100_000,
    cpu_s=60.0,
    agreement=0.9,
    drop=0.0,
    drop_seen=0.0,
    verdicts="pr",
    promoted=1,
    refused=1,
    mistakes=Mistakes(0, 1),
    gated=True,
    entropy_before_nats=2.0,
    entropy_nats=1.5,
    distinct_2_ratio=0.3,
    curve=[(0, 0.4), (50_000, 0.5)],
)


def two() -> list[Compared]:
    """lmsi ends at 50, 60 and 70%, its control at 40, 40 and 40%; of the third seed the control failed."""
    lmsi = Compared("lmsi", None, ("method.recipe=lmsi",), {s: replace(RUN, after=0.5 + 0.1 * s) for s in range(3)})
    free = replace(RUN, after=0.4, gated=False, verdicts="pp", agreement=None, drop=0.05, drop_seen=0.1, cpu_s=None)
    control = Compared("unvoted", "lmsi", ("method.recipe=unvoted",), {0: free, 1: free}, {2: "no room"})
    return [lmsi, control]


def cells(table: tuple[tuple[str, ...], list[tuple[str, ...]]], row: int) -> dict[str, str]:
    return dict(zip(table[0], table[1][row], strict=True))


def test_three_figures_are_a_mean_with_students_interval_and_fewer_are_themselves() -> None:
    """Standard deviation 1, so 4.3027 / sqrt(3) on each side of 2."""
    assert spread([1, 2, 3], "{:.2f}".format) == "2.00 (-0.48 to 4.48)"
    assert spread([1, None, 3], "{:.0f}".format) == "1, 3"
    assert spread([None], str) == spread([], str) == "-"


def test_a_gain_is_paired_by_seed_and_needs_both_runs() -> None:
    lmsi, control = two()
    assert gains(lmsi, control) == pytest.approx([0.1, 0.2])
    assert gains(lmsi, None) == []
    control.runs[0] = replace(RUN, after=None)
    assert gains(lmsi, control) == pytest.approx([0.2])


def test_outcomes_tell_gain_and_cost() -> None:
    lmsi, control = (cells(outcomes(two()), row) for row in range(2))
    assert (lmsi["seeds"], lmsi["served after"]) == ("3", "60.0% (35.2% to 84.8%)")
    assert (lmsi["above its control"], lmsi["sampled tokens"]) == ("+10.0, +20.0", "0.100M (0.100M to 0.100M)")
    assert (control["recipe"], control["seeds"]) == ("control of lmsi: unvoted", "2, 1 failed")
    assert (control["above its control"], control["CPU-s"]) == ("", "-")


def test_mistakes_are_those_of_a_gate_and_sum_over_seeds() -> None:
    lmsi, control = (cells(safety(two()), row) for row in range(2))
    assert (lmsi["verdicts by seed"], lmsi["false promotions"], lmsi["missed promotions"]) == (
        "pr pr pr",
        "0 of 3",
        "3 of 3",
    )
    assert (control["false promotions"], control["worst drop served: bound, seen"]) == ("no gate", "5.0%, 10.0%")
    assert control["answer entropy (nats): before, after"] == "2.00, 2.00, 1.50, 1.50"


def test_a_comparison_without_any_finished_run_is_told_too(tmp_path: Path) -> None:
    none = [Compared("lmsi", None, (), {}, {0: "it burned"})]
    text = page(none, "command", {}, "a.svg")
    assert "| lmsi | 0, 1 failed | - | - | - | - | - |" in text and "- lmsi, seed 0: it burned" in text
    draw(tmp_path / "a.svg", none)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_a_page_says_how_it_was_made(tmp_path: Path) -> None:
    text = page(two(), "./run compare lmsi", {"commit": "abc"}, "c.svg")
    assert "```\n./run compare lmsi\n```" in text and "- commit: abc\n" in text and "](c.svg)" in text
    assert "- control of lmsi: unvoted: `method.recipe=unvoted`" in text


def test_a_band_holds_each_run_at_its_last_accuracy() -> None:
    assert [at([(0, 0.4), (10, 0.5)], tokens) for tokens in (0, 9, 10, 99)] == [0.4, 0.4, 0.5, 0.5]
    found = together([[(0, 0.4), (10, 0.5)], [(0, 0.2), (20, 0.3)], []])
    assert [tokens for tokens, *_ in found] == [0, 10, 20]
    assert [each for _, *band in found for each in band] == pytest.approx(
        [0.3, 0.2, 0.4, 0.35, 0.2, 0.5, 0.4, 0.3, 0.5]
    )


def test_the_same_runs_give_the_same_plot(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name, two())
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_run_directory_and_its_report_make_a_summary(tmp_path: Path) -> None:
    """v1 is better and promoted, v2 worse and promoted, v3 better than v2 and held."""
    verdicts = {1: "promote", 2: "promote", 3: "hold"}
    measured = {0: hits(160), 1: hits(240), 2: hits(200), 3: hits(220)}
    folder = run_directory(tmp_path / "r", verdicts, measured, {})
    store = RunStore(folder)
    rates = {"accuracy": 0.5, "low": 0.0, "high": 1.0, "n": 1, "hits": "1"}
    store.write([FinalMeasured(version=2, **rates, entropy_nats=1.25, distinct_2_ratio=0.5).record("end")])
    store.close()
    said = ["base", "promote", "promote", "hold"]
    rows = [
        {"version": v, "verdict": said[v], "tokens": 1000 * v, "agreement": 0.8 + v / 100 if v else None}
        for v in range(4)
    ]
    body = dict(accuracy_start=0.4, accuracy_end=0.5, tokens_generated=3500, served=2, gate="guarded", versions=rows)
    found = summarize(folder, body)
    assert (found.verdicts, found.promoted, found.refused, found.mistakes) == ("pph", 2, 1, Mistakes(1, 1))
    assert found.curve == [(0, 0.4), (1000, 0.6), (2000, 0.5), (3000, 0.5)]
    assert (found.agreement, found.drop_seen) == (pytest.approx(0.82), pytest.approx(0.1)) and 0 < found.drop < 0.1
    assert (found.tokens, found.cpu_s, found.gated) == (3500, None, True)
    assert (found.entropy_before_nats, found.entropy_nats, found.distinct_2_ratio) == (None, 1.25, 0.5)
