"""Rules for deletion: the samples of old windows (deleted by the store) and the folders of old versions (deleted by the
versions actor). Pure functions."""

from collections.abc import Iterable, Mapping

from core.config import LearningConfig, RetentionConfig


def windows_kept(retention: RetentionConfig, learning: LearningConfig) -> int | None:
    """Number of newest windows that keep their samples, never fewer than a draw can need (`Replay`). None: all."""
    needed = learning.replay_windows + learning.max_lag + 1
    return None if retention.windows is None else max(retention.windows, needed)


def forgettable(drawn: Iterable[int], rejected: Mapping[int, bool], keep: int) -> list[int]:
    """The drawn windows that no draw can need again, oldest first. They are decided (a key of `rejected`), not among
    the `keep` newest, and not among the `keep` newest that were not rejected."""
    newest_first = sorted(drawn, reverse=True)
    good = [number for number in newest_first if not rejected.get(number, False)]
    kept = {*newest_first[:keep], *good[:keep]}
    return sorted(number for number in newest_first if number in rejected and number not in kept)


def prunable(promoted: Mapping[int, bool], needed: Iterable[int], keep: int) -> list[int]:
    """The versions whose folder is no longer needed, oldest first. They have a verdict (a key of `promoted`), are not
    `needed`, not among the `keep` newest promoted, and not among the `keep` newest others. Never the base."""
    kept = {0, *needed}
    for kind in (True, False):
        kept |= set(sorted(version for version, is_promoted in promoted.items() if is_promoted == kind)[-keep:])
    return sorted(set(promoted) - kept)
