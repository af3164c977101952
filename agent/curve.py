"""A watch's reading over time as a small SVG picture, with its limit and numbered marks for what happened; it asks nobody for anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

WIDE, LEFT, RIGHT, TOP, BOTTOM = 720, 64, 704, 34, 214
LINE = 16  # height of a line of the legend
POINTS = 400  # drawn at most; more are joined into stretches with their lowest and highest
APART = 14  # pixels between two numbers that can be told apart
LONGEST = 110  # characters of a mark's text
STYLE = (
    ".wk{font:11px system-ui,sans-serif}.wk .bg{fill:#fff}.wk text{fill:#1f2328}.wk .m{fill:#59636e}.wk .g{stroke:#d1d9e0}"
    ".wk .l{fill:none;stroke:#0969da;stroke-width:1.6}.wk .d{fill:#0969da}.wk .r{fill:#0969da;opacity:.18}"
    ".wk .x{stroke:#cf222e;stroke-dasharray:4 3}.wk .v{stroke:#8250df}.wk .n{fill:#8250df;font-weight:600}"
    ".wk .h{font-weight:600;font-size:12px}.wk .e{text-anchor:end}"
    ".wk .c{text-anchor:middle}"
    "@media(prefers-color-scheme:dark){.wk .bg{fill:#0d1117}.wk text{fill:#e6edf3}.wk .m{fill:#9198a1}.wk .g{stroke:#3d444d}"
    ".wk .l{stroke:#4da3ff}.wk .d,.wk .r{fill:#4da3ff}.wk .x{stroke:#ff7b72}.wk .v{stroke:#bf8cf2}.wk .n{fill:#bf8cf2}}"
)


@dataclass(frozen=True, slots=True)
class Point:
    """The reading around one time: its mean, and the lowest and highest there."""

    at: datetime
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: a version change, a run's first effect, the end. They are drawn in the order given."""

    at: datetime
    what: str


def draw(points: Sequence[Point], limit: float | None, marks: Sequence[Mark], title: str, unit: str = "") -> str:
    """The picture; empty text when there is nothing finite to draw."""
    shown = _joined([p for p in points if all(map(math.isfinite, (p.mean, p.low, p.high)))])
    if not shown:
        return ""
    limit = limit if limit is not None and math.isfinite(limit) else None
    start, end = min([shown[0].at, *(m.at for m in marks)]), max([shown[-1].at, *(m.at for m in marks)])
    x, y = _across(start, end), _up([p.low for p in shown] + [p.high for p in shown] + ([limit] if limit is not None else []))
    high = BOTTOM + 26 + LINE * len(marks)
    parts = [*_frame(shown, limit, title, unit, start, end, x, y), *_curve(shown, x, y), *_marks(marks, x)]
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="wk" viewBox="0 0 {WIDE} {high}" width="{WIDE}" height="{high}" role="img" '
        f'aria-label="{_safe(title)}"><style>{STYLE}</style><rect class="bg" width="{WIDE}" height="{high}"/>{body}</svg>\n'
    )


class _Scale:
    """From values to pixels."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high, self.first, self.last = low, high, first, last

    def __call__(self, value: float) -> float:
        return round(self.first + (self.last - self.first) * ((value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)), 1)


def _across(start: datetime, end: datetime) -> _Scale:
    first, last = start.timestamp(), end.timestamp()
    room = (last - first) * 0.02 or 30.0
    return _Scale(first - room, last + room, LEFT, RIGHT)


def _up(values: Sequence[float]) -> _Scale:
    low, high = min(values), max(values)
    room = (high / 2 - low / 2) * 0.16 or max(abs(high) * 0.1, 0.5)
    below = 0.0 if 0 <= low <= room * 4 else low - room
    return _Scale(below if math.isfinite(below) else low, high + room if math.isfinite(high + room) else high, BOTTOM, TOP)


def _joined(points: Sequence[Point]) -> list[Point]:
    """At most POINTS of them, in the order of time."""
    ordered = sorted(points, key=lambda p: p.at)
    step = max(1, math.ceil(len(ordered) / POINTS))
    some = [ordered[n : n + step] for n in range(0, len(ordered), step)]
    return [Point(g[0].at, sum(p.mean / len(g) for p in g), min(p.low for p in g), max(p.high for p in g)) for g in some]


def _frame(shown: Sequence[Point], limit: float | None, title: str, unit: str, start: datetime, end: datetime, x: _Scale, y: _Scale) -> Iterator[str]:
    yield f'<text class="h" x="{LEFT}" y="18">{_safe(title)}{_safe(f" ({unit})") if unit else ""}</text>'
    low, high = min(p.low for p in shown), max(p.high for p in shown)
    for value in dict.fromkeys((low, high)):
        yield f'<line class="g" x1="{LEFT}" x2="{RIGHT}" y1="{y(value)}" y2="{y(value)}"/>'
        yield f'<text class="m e" x="{LEFT - 6}" y="{y(value) + 4}">{value:.4g}</text>'
    if limit is not None:
        yield f'<line class="x" x1="{LEFT}" x2="{RIGHT}" y1="{y(limit)}" y2="{y(limit)}"/>'
        yield f'<text class="m e" x="{RIGHT}" y="{y(limit) - 4}">limit {limit:.4g}</text>'
    yield f'<text class="m" x="{LEFT}" y="{BOTTOM + 16}">{start:%Y-%m-%d %H:%M:%S}Z</text>'
    yield f'<text class="m e" x="{RIGHT}" y="{BOTTOM + 16}">{end:%Y-%m-%d %H:%M:%S}Z</text>'


def _curve(shown: Sequence[Point], x: _Scale, y: _Scale) -> Iterator[str]:
    at = [x(p.at.timestamp()) for p in shown]
    if any(p.high > p.low for p in shown) and len(shown) > 1:
        there = [f"{a},{y(p.high)}" for a, p in zip(at, shown, strict=True)]
        back = [f"{a},{y(p.low)}" for a, p in zip(at, shown, strict=True)][::-1]
        yield f'<polygon class="r" points="{" ".join([*there, *back])}"/>'
    until = [*at[1:], at[-1]]  # a reading stands until the next look
    yield f'<polyline class="l" points="{" ".join(f"{a},{y(p.mean)} {b},{y(p.mean)}" for a, b, p in zip(at, until, shown, strict=True))}"/>'
    if len(shown) <= 60:
        yield from (f'<circle class="d" cx="{a}" cy="{y(p.mean)}" r="2.4"/>' for a, p in zip(at, shown, strict=True))


def _marks(marks: Sequence[Mark], x: _Scale) -> Iterator[str]:
    places = [x(mark.at.timestamp()) for mark in marks]
    for first, last in _near(places):
        number = str(first + 1) if first == last else f"{first + 1}-{last + 1}"
        yield f'<text class="n c" x="{places[first]}" y="{TOP - 5}">{number}</text>'
    for n, (mark, place) in enumerate(zip(marks, places, strict=True), 1):
        line = BOTTOM + 18 + LINE * n
        yield f'<line class="v" x1="{place}" x2="{place}" y1="{TOP - 2}" y2="{BOTTOM}"/>'
        what = mark.what if len(mark.what) <= LONGEST else f"{mark.what[: LONGEST - 1]}…"
        yield f'<text class="n" x="{LEFT}" y="{line}">{n}</text><text x="{LEFT + 18}" y="{line}">{mark.at:%H:%M:%S}Z  {_safe(what)}</text>'


def _near(places: Sequence[float]) -> Iterator[tuple[int, int]]:
    """First and last of each group of marks that stand too near each other to be numbered apart."""
    first = 0
    for n, place in enumerate(places):
        if n + 1 == len(places) or places[n + 1] - place > APART:
            yield first, n
            first = n + 1


def _safe(text: str) -> str:
    """Text that may stand in XML: a control character would end the picture."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
