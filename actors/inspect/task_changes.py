"""What versions keep of tasks that the run does not learn."""

from collections.abc import Sequence
from typing import TypedDict

from core.store.facts import OtherMeasured
from training.gate.statistics import paired_interval


class TaskChange(TypedDict):
    """A version beside the base on one task. Shares of the same `n` questions."""

    task: str
    n: int
    before: float
    after: float
    change: float
    low: float
    """95% limits of the change."""
    high: float


def changes(found: Sequence[OtherMeasured], version: int) -> list[TaskChange]:
    """Of a version against the base, on every task on which both answered the same number of questions."""
    base = {each.task: each for each in found if each.version == 0}
    now = [each for each in found if each.version == version and each.task in base]
    return [_change(base[each.task], each) for each in now if each.n == base[each.task].n]


def _change(base: OtherMeasured, now: OtherMeasured) -> TaskChange:
    hits = ([bit == "1" for bit in each.hits] for each in (now, base))
    change, low, high = paired_interval(*hits)
    rates = {"before": base.accuracy, "after": now.accuracy, "change": change, "low": low, "high": high}
    return TaskChange(task=now.task, n=now.n, **rates)
