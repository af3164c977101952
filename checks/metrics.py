"""Whether numbers that somebody else measures are within their limits: what users wait, what fails for them, what the business earns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from agent import Metrics, Reading, Sample, Samples, Verdict, Window, check, digest, error, fail, nodata, ok, warn
from agent.errors import ConfigError

PARTS = 100  # series kept in a finding, the worst first; all of them are judged
LONG = 200  # characters of a part's name


@dataclass(frozen=True, slots=True)
class Limits:
    """What a number should be: at most, at least, or both."""

    at_most: float | None
    at_least: float | None
    unit: str

    def __post_init__(self) -> None:
        if self.at_most is None and self.at_least is None:
            raise ConfigError("neither at_most nor at_least is given, so nothing could ever be wrong; write one of them under `with`")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ConfigError(f"no number is at least {self.at_least:g} and at most {self.at_most:g}; exchange them")

    def excess(self, value: float) -> float:
        """How far beyond the limit it is nearest to; at most 0 within."""
        return max(-inf if self.at_most is None else value - self.at_most, -inf if self.at_least is None else self.at_least - value)

    def reading(self, value: float | None, n: int | None = None) -> Reading:
        """The number beside the limit it is nearest to."""
        above = self.at_least is None or (self.at_most is not None and value is not None and value - self.at_most >= self.at_least - value)
        return Reading(value, self.at_most if above else self.at_least, n=n, unit=self.unit)


@check(pillar="monitoring", asks="Do users get their answers in time, as measured where they are?", cause="latency")
def latency(
    metrics: Metrics,
    window: Window,
    *,
    query: str,
    at_most: float | None = None,
    at_least: float | None = None,
    by: list[str] | None = None,
    series_at_least: int = 1,
    unit: str = "s",
) -> Verdict:
    """`metrics.query` for a latency: its fails point at latency, which a rollback may cure."""
    return _judged(metrics.query(query, window), Limits(at_most, at_least, unit), by, series_at_least)


@check(pillar="monitoring", asks="Is the share of requests that fail for users within its limit?", cause="errors")
def errors(
    metrics: Metrics,
    window: Window,
    *,
    query: str,
    at_most: float | None = None,
    at_least: float | None = None,
    by: list[str] | None = None,
    series_at_least: int = 1,
    unit: str = "share",
) -> Verdict:
    """`metrics.query` for errors: its fails point at errors, which a rollback may cure."""
    return _judged(metrics.query(query, window), Limits(at_most, at_least, unit), by, series_at_least)


@check(pillar="monitoring", asks="Is a number that the business feels within its limits?", cause="business")
def query(
    metrics: Metrics,
    window: Window,
    *,
    query: str,
    at_most: float | None = None,
    at_least: float | None = None,
    by: list[str] | None = None,
    series_at_least: int = 1,
    unit: str = "",
) -> Verdict:
    """Fails when any series the query answers is above `at_most` or below `at_least`; the recorded number is the store's own.

    The query is the store's language, evaluated at the end of the window. Each series is a part, named by its labels, or by those in `by`.
    NaN and the infinities are no numbers: such a series is told and not judged. Fewer than `series_at_least` series with a number is nodata.
    A warning of the store makes what would be ok a warning. Two series of one name are an error: what is judged would be chance.
    """
    return _judged(metrics.query(query, window), Limits(at_most, at_least, unit), by, series_at_least)


def _judged(found: Samples, limits: Limits, by: Sequence[str] | None, series_at_least: int) -> Verdict:
    named = [(_name(sample.labels, by), sample) for sample in found.series]
    if twice := _twice(name for name, _ in named):
        return error(f"two series are called {twice}; name more labels in `by`, or aggregate in the query")
    numbers = sorted(((n, s.value) for n, s in named if isfinite(s.value)), key=lambda one: (-limits.excess(one[1]), one[0]))
    idle = [(name, sample) for name, sample in named if not isfinite(sample.value)]
    parts = {name: limits.reading(value) for name, value in numbers} | {name: limits.reading(None) for name, _ in idle}
    kept = dict([*parts.items()][:PARTS]) if len(named) > 1 or by else {}
    if len(numbers) < max(series_at_least, 1):
        return nodata(f"{_several(len(numbers))} with a number, {max(series_at_least, 1)} needed{_left(idle)}{_doubt(found)}", parts=kept)
    bad = [one for one in numbers if limits.excess(one[1]) > 0]
    reading = limits.reading(numbers[0][1], len(numbers))
    if bad:
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        told = "; ".join(_told(name, limits, value) for name, value in bad[:3])
        return fail(f"{len(bad)} of {_several(len(numbers))} beyond the limit: {told}{more}{_left(idle)}{_doubt(found)}", reading, parts=kept)
    calm = f"{_several(len(numbers))} within the limit, nearest to it {_told(numbers[0][0], limits, numbers[0][1])}{_left(idle)}{_doubt(found)}"
    return (warn if found.warnings else ok)(calm, reading, parts=kept)


def _name(labels: Mapping[str, str], by: Sequence[str] | None) -> str:
    """The values of the labels in `by`, or every label with its value; cut where somebody else's label is as long as a book."""
    text = ", ".join(labels.get(label, "") for label in by) if by else ", ".join(f"{key}={labels[key]}" for key in sorted(labels))
    return (text if len(text) <= LONG else f"{text[: LONG - 10]}…{digest(text)[:8]}") or "all"


def _twice(names: Iterator[str]) -> str:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]  # add, and go on


def _told(name: str, limits: Limits, value: float) -> str:
    reading = limits.reading(value)
    side = "at most" if reading.limit == limits.at_most else "at least"
    return f"{name} {value:.6g}{f' {limits.unit}' if limits.unit else ''} ({side} {reading.limit:g})"


def _several(count: int) -> str:
    return f"{count} series" if count != 1 else "one series"


def _left(idle: Sequence[tuple[str, Sample]]) -> str:
    if not idle:
        return ""
    words = ", ".join(f"{name} is {sample.value:g}" for name, sample in idle[:3]) + (f" and {len(idle) - 3} more" if len(idle) > 3 else "")
    return f"; no number: {words}"


def _doubt(found: Samples) -> str:
    return f"; the store warns: {'; '.join(found.warnings)[:300]}" if found.warnings else ""
