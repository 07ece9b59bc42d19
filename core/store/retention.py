"""What a run may throw away: payloads of old windows (the store does it), folders of old versions (Versions does it).
Pure."""

from collections.abc import Iterable, Mapping

from core.config import LearningConfig, RetentionConfig


def windows_kept(retention: RetentionConfig, learning: LearningConfig) -> int | None:
    """Newest windows that keep their payloads, never fewer than a draw can need (`Replay`). None: all."""
    needed = learning.replay_windows + learning.max_lag + 1
    return None if retention.windows is None else max(retention.windows, needed)


def forgettable(drawn: Iterable[int], rejected: Mapping[int, bool], keep: int) -> list[int]:
    """Of the windows drawn, oldest first, those that no draw can need again: decided (`rejected` names the decided
    ones), not among the `keep` newest, nor among the `keep` newest that were not rejected."""
    newest_first = sorted(drawn, reverse=True)
    good = [number for number in newest_first if not rejected.get(number, False)]
    kept = {*newest_first[:keep], *good[:keep]}
    return sorted(number for number in newest_first if number in rejected and number not in kept)


def prunable(promoted: Mapping[int, bool], needed: Iterable[int], keep: int) -> list[int]:
    """Of the versions with a verdict (`promoted` says which), oldest first, those whose folder nobody can need: not
    `needed`, not among the `keep` newest promoted, nor among the `keep` newest others. Never the base."""
    kept = {0, *needed}
    for kind in (True, False):
        kept |= set(sorted(version for version, is_promoted in promoted.items() if is_promoted == kind)[-keep:])
    return sorted(set(promoted) - kept)
