"""Filters: each returns the reason to drop a scored group, or None to keep it."""

from core.messages import Scored
from core.protocols import DropReason, Filter, History


def has_winner(scored: Scored, history: History) -> DropReason | None:
    """Drops groups without a winner: no answer at all, or none with more weight for it than against it."""
    return "no_winner" if scored.verdict.winner is None else None


def has_winning_candidate(scored: Scored, history: History) -> DropReason | None:
    """Drops groups in which people outvoted every sample: no candidate has the winning answer."""
    return None if any(scored.verdict.scores) else "no_winning_candidate"


def min_share(threshold: float, tuned: str = "min_share") -> Filter:
    """Drops groups whose winner has a smaller share than `threshold`, or than the tuned value of that name."""

    def low(scored: Scored, history: History) -> DropReason | None:
        return "low_share" if scored.verdict.share < history.tuned.get(tuned, threshold) else None

    return low
