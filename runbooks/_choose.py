"""Which of the measured variants may take the place of the graph they were made from, and which of those is the best. Nothing here measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.stats import Ratio, paired
from runbooks._latency import surely_later
from runbooks._quality import Quality

PLAIN = "as it is"  # what the graph itself is called
SLACK = 0.05  # by how much the interval of a speed may begin below what is wanted
LEAD = 0.2  # a lead in speed that is worth losing quality for, as a share


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must keep: `least` of the answers, at most `largest` of the size; and it must be `speed` times as fast at every batch size."""

    least: float = 0.98
    largest: float = 0.6
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a variant: bytes, by batch size the seconds of each round (all variants in the same rounds), and how its answers agree."""

    name: str
    size: int
    times: Mapping[int, Sequence[float]]
    quality: Quality


@dataclass(frozen=True, slots=True)
class Choice:
    """The best, if any is better; those tied with it in speed; and why each of the others is refused."""

    best: str | None
    tied: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


def choose(plain: Measured, variants: Sequence[Measured], limits: Limits) -> Choice:
    """The fastest variant that is neither larger, slower nor worse; ties, and leads below LEAD, go to the better quality.

    Fast is what is fast at its slowest batch size. Only what is surely slower than the fastest, rounds paired, loses by it, so that noise decides
    nothing but what is tied; what then decides (answers kept, fidelity, size, name) has no noise in it.
    """
    refused = {one.name: why for one in variants if (why := refusal(plain, one, limits))}
    good = [one for one in variants if one.name not in refused]
    if not good:
        return Choice(None, (), refused)
    fastest = max(good, key=lambda one: (slowest(plain, one).middle, one.name))
    tied = [one for one in good if one is fastest or not _behind(fastest, one)]
    best = max(tied, key=lambda one: (round(one.quality.kept, 3), round(one.quality.fidelity, 1), -one.size, one.name))
    return Choice(best.name, tuple(one.name for one in tied), refused)


def refusal(plain: Measured, one: Measured, limits: Limits) -> str:
    """Why it may not take the place; empty where it may."""
    quality = one.quality
    if one.size > plain.size * limits.largest:
        return f"larger: it keeps {one.size / plain.size:.0%} of the size, and may keep {limits.largest:.0%}"
    if quality.kept < limits.least:
        return f"worse: {kept_in_words(quality)}, and at least {limits.least:.4g} is wanted"
    if quality.worse:
        return f"worse: {quality.lost} rows were right before and are wrong now, {quality.won} the other way; that is no accident"
    found = ratios(plain, one)
    for size, ratio in found.items():
        if ratio.high < limits.speed:
            return f"slower: {ratio.middle:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}) as fast at batch {size}"
        if surely_later(plain.times[size], [limits.speed * time for time in one.times[size]]):
            return f"slower: its slowest hundredth is surely later at batch {size}"
    for size, ratio in found.items():
        if ratio.low < limits.speed * (1 - SLACK):
            return f"not shown to be fast enough: {ratio.low:.2f}x to {ratio.high:.2f}x at batch {size}; more rounds would tell"
    return ""


def ratios(plain: Measured, one: Measured) -> dict[int, Ratio]:
    """How many times as fast it is, by batch size."""
    return {size: paired(plain.times[size], one.times[size]) for size in sorted(plain.times)}


def slowest(plain: Measured, one: Measured) -> Ratio:
    """How many times as fast it is where it gains least."""
    return min(ratios(plain, one).values(), key=lambda ratio: ratio.middle)


def _behind(fastest: Measured, one: Measured) -> bool:
    """Whether it is surely slower than the fastest by more than LEAD, at the batch size where it is worst off."""
    return min(ratio.high for ratio in ratios(fastest, one).values()) < 1 - LEAD


def kept_in_words(quality: Quality) -> str:
    """What is judged of the answers, as a sentence's part."""
    words = {"classes": "{:.2%} of the answers are the same", "vectors": "mean cosine {:.4f}", "numbers": "{:.4f} of the variance is kept"}
    return words[quality.kind].format(quality.kept)
