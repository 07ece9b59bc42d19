"""Which judged groups are not worth learning from. A filter gives the reason to drop one, or None."""

from core.messages import Scored
from core.protocols import DropReason, Filter


def has_winner(scored: Scored) -> DropReason | None:
    """Nobody won: no answer at all, or none with more weight for than against it."""
    return "no_winner" if scored.verdict.winner is None else None


def has_winning_candidate(scored: Scored) -> DropReason | None:
    """People may outvote every sample: then there is a winner, and nothing of our own to learn it from."""
    return None if any(scored.verdict.scores) else "no_winning_candidate"


def min_share(threshold: float) -> Filter:
    def low(scored: Scored) -> DropReason | None:
        return "low_share" if scored.verdict.share < threshold else None

    return low
