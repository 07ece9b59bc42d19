"""Filters: each returns the reason to drop a scored group, or None to keep it."""

from core.messages import Scored
from core.protocols import DropReason, Filter


def has_winner(scored: Scored) -> DropReason | None:
    """Drops groups without a winner: no answer at all, or none with more weight for it than against it."""
    return "no_winner" if scored.verdict.winner is None else None


def has_winning_candidate(scored: Scored) -> DropReason | None:
    """Drops groups in which people outvoted every sample: no candidate has the winning answer."""
    return None if any(scored.verdict.scores) else "no_winning_candidate"


def min_share(threshold: float) -> Filter:
    """Drops groups whose winner has a smaller share than `threshold`."""

    def low(scored: Scored) -> DropReason | None:
        return "low_share" if scored.verdict.share < threshold else None

    return low
