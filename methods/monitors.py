"""Numbers that warn early: whether a policy still verifies better than it generates, whether a second look helps, and
whether its answers grow alike. Pure functions of judged samples.

A utility is 1 for a right answer, 0 for a wrong one, or between. It must come from keys or people: a vote that is its
own utility always finds that it is right, also while it goes wrong (PRIME-RL/TTRL#29).
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from core.answers import same
from core.protocols import Extract
from methods.reweight import reweighted, weights


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence limits. With fewer than two values the limits are infinite."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gap:
    """The generation-verification gap, in units of utility."""

    absolute: float
    """Mean over the prompts of J' - J."""
    relative: float | None
    """Mean over the prompts of (J' - J) / (greatest utility - J), the part of what is missing that verification finds.
    Prompts of which nothing is missing are left out; None if none is left."""
    interval: Interval
    """Of the absolute gap, over prompts."""


def gv_gap(
    utilities: Sequence[Sequence[float]],
    scores: Sequence[Sequence[float]],
    threshold: float | Sequence[float],
    greatest: float = 1.0,
) -> Gap | None:
    """The gap of a verifier: the mean utility of samples with a score of at least `threshold`, J', minus J, of all.

    `utilities` and `scores` hold a row for each prompt, a number for each sample. `threshold`: one for all, or one for
    each prompt (methods.reweight.quantile). A prompt without survivors has no gap. `greatest`: the greatest utility.
    None without prompts. Source: Mind the Gap, arXiv 2412.02674, definitions 2.1 and 2.2."""
    if not utilities:
        return None
    taus = threshold if isinstance(threshold, Sequence) else [threshold] * len(utilities)
    before = [fmean(row) for row in utilities]
    after = [reweighted(u, weights(s, tau)) for u, s, tau in zip(utilities, scores, taus, strict=True)]
    gaps = [later - first for first, later in zip(before, after, strict=True)]
    relative = [gap / (greatest - first) for gap, first in zip(gaps, before, strict=True) if first < greatest]
    return Gap(fmean(gaps), fmean(relative) if relative else None, interval(gaps))


def gap_gone(history: Sequence[Interval], eps: float, windows: int = 2) -> bool:
    """The early warning: in each of the last `windows` measurements (oldest first) the upper confidence limit of the
    gap is below `eps`, in units of utility. Training on the verifier's choice can then gain nothing more."""
    return len(history) >= windows and all(each.high < eps for each in history[-windows:])


def interval(values: Sequence[float], deviations: float = 1.96) -> Interval:
    """The mean of independent values, plus and minus `deviations` standard errors; 1.96 is 95% for many values."""
    if len(values) < 2:
        return Interval(fmean(values) if values else math.nan, -math.inf, math.inf)
    mean, error = fmean(values), deviations * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - error, mean + error)


@dataclass(frozen=True)
class Correction:
    """What a second answer after a first one does. None: undefined."""

    kept: float | None
    """CL: of the right first answers, the part that stays right."""
    mended: float | None
    """CS: of the wrong first answers, the part that becomes right."""
    first: float
    """Accuracy of the first answer."""
    second: float
    """Accuracy of the second: first * kept + (1 - first) * mended."""
    rss: float | None
    """(second - first^2) / (2 first (1 - first)): above .5 if and only if the second answer is more often right."""


def cl_cs_rss(
    right_first: Sequence[float], stays_right: Sequence[float | None], turns_right: Sequence[float | None]
) -> Correction | None:
    """Confidence, critique and relative self-correction score. A number for each question:

    `right_first`: p_a, the part of its samples whose first answer is right. `stays_right`: p_b, of those the part whose
    second answer is right too; None if there are none. `turns_right`: p_c, the same of those with a wrong first answer.
    Both are conditional on the first answer of the same sample (`conditionals`); the overall accuracy of the second
    answers in place of p_b gives other numbers. None without questions. Source: arXiv 2412.19513."""
    if not right_first:
        return None
    right = math.fsum(right_first)
    wrong = len(right_first) - right
    both = math.fsum(a * b for a, b in zip(right_first, stays_right, strict=True) if b is not None)
    only_second = math.fsum((1 - a) * c for a, c in zip(right_first, turns_right, strict=True) if c is not None)
    first, second = right / len(right_first), (both + only_second) / len(right_first)
    return Correction(
        kept=both / right if right > 0 else None,
        mended=only_second / wrong if wrong > 0 else None,
        first=first,
        second=second,
        rss=(second - first**2) / (2 * first * (1 - first)) if 0 < first < 1 else None,
    )


def conditionals(samples: Sequence[tuple[bool, bool]]) -> tuple[float, float | None, float | None]:
    """p_a, p_b and p_c of one question, from whether the first and the second answer of each sample are right."""
    kept = [second for first, second in samples if first]
    mended = [second for first, second in samples if not first]
    return len(kept) / len(samples), fmean(kept) if kept else None, fmean(mended) if mended else None


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of `k` samples of a prompt is right, unbiased, from `samples` of which `right` are.
    Source: arXiv 2107.03374.

    Raises: ValueError for k above the number of samples."""
    if not 1 <= k <= samples:
        raise ValueError(
            f"pass@{k} needs at least {k} samples and k >= 1, got {samples} samples; draw more, or lower k"
        )
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def answer_entropy(answers: Iterable[str | None]) -> float | None:
    """Entropy (nats) of the answers of one prompt's samples: 0 if all are equal. Samples without an answer (None) are
    left out; None if no sample has one."""
    counts = Counter(answer for answer in answers if answer is not None)
    total = sum(counts.values())
    return -math.fsum(n / total * math.log(n / total) for n in counts.values()) + 0.0 if total else None


def answer_diversity(answers: Iterable[str | None]) -> float | None:
    """Distinct answers of one prompt's samples, divided by the number of samples with one; None without any."""
    given = [answer for answer in answers if answer is not None]
    return len(set(given)) / len(given) if given else None


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Distinct sequences of `n` words, divided by all of them, over the texts together; None if there is none. It
    prefers short texts: compare sets of about one length. Source: arXiv 1510.03055."""
    grams: list[Hashable] = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


@dataclass(frozen=True)
class Formats:
    """Parts of the texts. Where `exact` rises to `flexible`, the policy learned the format, not the task."""

    exact: float
    """Right as the format demands."""
    flexible: float
    """Right as a lenient reader finds it."""
    formatted: float
    """With an answer as the format demands, right or not."""


def formats(texts: Sequence[str], keys: Sequence[str], strict: Extract, lenient: Extract) -> Formats | None:
    """Whether texts, one for each key, are right by two ways to read them. None without texts.
    Source: Mind the Gap, arXiv 2412.02674, section 3."""
    if not texts:
        return None
    found = [strict(text) for text in texts]
    return Formats(
        exact=fmean(same(answer, strict(key, True)) for answer, key in zip(found, keys, strict=True)),
        flexible=fmean(same(lenient(text), lenient(key, True)) for text, key in zip(texts, keys, strict=True)),
        formatted=fmean(answer is not None for answer in found),
    )
