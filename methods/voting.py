"""What recipes that imitate the winners of a vote have in common."""

from pydantic import Field

from core.config import Part
from core.protocols import Filter
from methods.filters import has_winner, has_winning_candidate, min_share


class Voting(Part):
    """Their settings."""

    min_share: float = Field(default=0.5, ge=0, le=1)
    """Minimum share of the winner; groups with less are dropped."""
    max_winners: int = Field(default=64, ge=1)
    """Maximum number of distinct winning candidates of a prompt that become examples."""


def won(settings: Voting) -> tuple[Filter, ...]:
    """Drops groups without a sure winner, or without a candidate that has the winning answer."""
    return has_winner, has_winning_candidate, min_share(settings.min_share)
