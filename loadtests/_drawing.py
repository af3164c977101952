"""The pictures of a load test, as SVG made of windows and percentiles alone: latency over time, and latency by percentile on a log axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from loadtests._summary import length_in_words
from loadtests._verdict import percentile

WIDE, LEFT, RIGHT = 960, 72, 944
TOP, BOTTOM = 20, 300  # the plot of latencies
HIGH = BOTTOM + 34
RAIL = 14  # above the plot: what had no good answer
STRIP = 34  # the height of a strip below it: rate, errors
LIGHT = "--bg:#fff;--ink:#1f2328;--dim:#59636e;--grid:#d8dee4;--blue:#0969da;--red:#cf222e;--green:#1a7f37;--amber:#9a6700;--card:#f6f8fa"
DARK = "--bg:#0d1117;--ink:#e6edf3;--dim:#9198a1;--grid:#30363d;--blue:#4da3ff;--red:#ff7b72;--green:#3fb950;--amber:#d29922;--card:#161b22"
COLOURS = (
    f":root{{color-scheme:light dark;{LIGHT}}}@media(prefers-color-scheme:dark){{:root{{{DARK}}}}}@media print{{:root{{color-scheme:light;{LIGHT}}}}}"
)
STYLE = (
    ".wk{font:12px system-ui,sans-serif}.wk text{fill:var(--dim)}.wk .t{fill:var(--ink);font-weight:600}.wk .e{text-anchor:end}"
    ".wk .c{text-anchor:middle}"
    ".wk .g{stroke:var(--grid);fill:none}.wk .a{fill:var(--blue);fill-opacity:.32}.wk .b{fill:var(--blue);fill-opacity:.16}"
    ".wk .d{fill:var(--blue);fill-opacity:.07}"
    ".wk .l{stroke:var(--blue);stroke-width:1.8;fill:none;stroke-linejoin:round}.wk .w{fill:var(--ink);fill-opacity:.6}"
    ".wk .x{stroke:var(--red);stroke-width:1.4;stroke-dasharray:6 4;fill:none}"
    ".wk .r{fill:var(--red)}.wk text.r{fill:var(--red);font-weight:600}.wk .k{stroke:var(--red);stroke-width:1.6;fill:none}"
    ".wk .o{stroke:var(--ink);stroke-width:1.6;fill:none}.wk .p{fill:var(--ink)}"
    ".wk .n{fill:var(--dim);fill-opacity:.13}.wk .h{fill:transparent}.wk .h:hover{fill:var(--dim);fill-opacity:.18}"
    ".wk .m{stroke:var(--dim);stroke-dasharray:2 3;fill:none}"
)
Scale = Callable[[float], float]


def over_time(told: Mapping[str, Any]) -> str:
    """Each window's median, 95th and 99th percentile and its worst answer on a log axis; below it the rate that was sent, and the share without a
    good answer. Empty where nothing was sent."""
    windows = told["windows"]
    if not windows:
        return ""
    end = windows[-1]["start"] + windows[-1]["seconds"]
    x = _across(end)
    values = [w[name] for w in windows for name in ("p50", "p99", "max") if w[name]]
    y, ticks = _latencies([*values, *(limit["seconds"] for limit in told["limits"])])
    parts = [
        *_warm(told["warm"], x),
        *_grid(y, ticks),
        *_bands(windows, x, y),
        *_limits(told["limits"], y),
        *_rail(windows, x),
        *_rates(windows, x, HIGH + 22),
        *_seconds(end, x, HIGH + 22 + STRIP),
        *_touched(windows, x, HIGH + 22 + STRIP),
    ]
    about = f"Latency in {len(windows)} windows: median, 95th and 99th percentile, and the slowest answer of each."
    return alone("".join(parts), HIGH + 22 + STRIP + 26, "Latency over time", about)


def by_percentile(told: Mapping[str, Any]) -> str:
    """Latency at each percentile on a log axis of 1 / (1 - q), with its interval, each limit, and in grey what the run is too short to say.

    Empty without requests.
    """
    points = told["curve"]
    if len(points) < 2:
        return ""
    most = -math.log10(1 - points[-1]["q"])

    def x(q: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(-math.log10(max(1 - q, 1e-12)) / most, 1.0)

    values = [point["seconds"] for point in points if point["seconds"]]
    y, ticks = _latencies([*values, *(limit["seconds"] for limit in told["limits"])])
    parts = [
        *_grid(y, ticks),
        *_quantiles(most, x),
        *_unsupported(points, x),
        *_interval(points, x, y),
        *_curve(points, x, y),
        *_judged(told["limits"], x, y),
    ]
    return alone(
        "".join(parts), HIGH + 8, "Latency by percentile", "Latency at each percentile on a log axis of 1/(1-q), with its interval and the limits."
    )


# Axes


def _latencies(values: Sequence[float]) -> tuple[Scale, Sequence[float]]:
    """Where a latency stands, None at the top, and the round lengths that are marked: 1, 2 and 5 of each power of ten, or fewer."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [0.001, 0.01]
    marks = [step * 10.0**power for power in range(-7, 7) for step in (1, 2, 5)]
    low = max((mark for mark in marks if mark <= min(known)), default=marks[0])
    high = min((mark for mark in marks if mark >= max(known) and mark > low), default=marks[-1])
    reach = math.log(high / low)
    ticks = [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]
    thinned = [mark for mark in ticks if f"{mark:.0e}"[0] == "1"] if len(ticks) > 13 else ticks

    def y(value: float | None) -> float:
        share = 1.0 if value is None else math.log(min(max(value, low), high) / low) / reach
        return BOTTOM - (BOTTOM - TOP - RAIL) * share

    return y, thinned


def _grid(y: Scale, ticks: Sequence[float]) -> Iterator[str]:
    yield f'<path class="g" d="{"".join(f"M{LEFT} {_n(y(mark))}H{RIGHT}" for mark in ticks)}"/>'
    yield from (_text(LEFT - 7, y(mark) + 4, length_in_words(mark), "e") for mark in ticks)


def _across(seconds: float) -> Scale:
    return lambda at: LEFT + (RIGHT - LEFT) * min(max(at / seconds, 0.0), 1.0)


def _seconds(end: float, x: Scale, y: float) -> Iterator[str]:
    """Round times, five to ten of them."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((step for step in steps if end / step <= 10), end / 5)
    for k in range(math.floor(end / step + 1e-9) + 1):
        yield _text(x(k * step), y + 16, clock(k * step), "c" if 0 < k * step < end * 0.98 else "e" if k else "")


def clock(seconds: float) -> str:
    """4.5 s, 90 s, 5 min, 2 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _quantiles(most: float, x: Scale) -> Iterator[str]:
    marks = [0.0, 0.5, *(1 - 10.0**-k for k in range(1, math.floor(most + 1e-9) + 1))]
    yield f'<path class="g" d="{"".join(f"M{_n(x(q))} {TOP}V{BOTTOM}" for q in marks[1:])}"/>'
    yield from (_text(x(q), BOTTOM + 17, percentile(round(q, 9)) if q else "p0", "c" if 0 < x(q) < RIGHT - 12 else "e" if q else "") for q in marks)


# Latency over time


def _ends(window: Mapping[str, Any], x: Scale) -> tuple[float, float]:
    return x(window["start"]), x(window["start"] + window["seconds"])


def _warm(seconds: float, x: Scale) -> Iterator[str]:
    if seconds:
        yield _box("n", LEFT, TOP, x(seconds) - LEFT, BOTTOM - TOP, "warm-up: sent and not judged")
        yield _text(LEFT + 5, BOTTOM - 8, "warm-up", "") if x(seconds) - LEFT > 60 else ""


def _bands(windows: Sequence[Mapping[str, Any]], x: Scale, y: Scale) -> Iterator[str]:
    """One path for each stretch between percentiles, up to the slowest answer, which is a short dash; where nothing came there is a gap."""
    seen = [w for w in windows if w["max"] is not None]
    for low, high, kind in (("p50", "p95", "a"), ("p95", "p99", "b"), ("p99", "max", "d")):
        tops = ((w, max(y(w[low]), y(w["max"])), max(y(w[high]), y(w["max"]))) for w in seen)
        drawn = [(*_ends(w, x), under, over) for w, under, over in tops if over < under]
        yield f'<path class="{kind}" d="{"".join(f"M{_n(a)} {_n(under)}V{_n(over)}H{_n(b)}V{_n(under)}z" for a, b, under, over in drawn)}"/>'
    line, before = [], math.nan
    for w in (w for w in seen if w["p50"] is not None):
        (left, right), at = _ends(w, x), _n(y(w["p50"]))
        line.append(f"{'L' if left == before else 'M'}{_n(left)} {at}H{_n(right)}")
        before = right
    yield f'<path class="l" d="{"".join(line)}"/>'
    marks = [(*_ends(w, x), y(w["max"])) for w in seen]
    yield "".join(f'<rect class="w" x="{_n(a)}" y="{_n(at - 1)}" width="{_n(max(b - a - 1, 1.5))}" height="2"/>' for a, b, at in marks)


def _limits(limits: Sequence[Mapping[str, Any]], y: Scale) -> Iterator[str]:
    for limit in limits:
        at = y(limit["seconds"])
        yield f'<path class="x" d="M{LEFT} {_n(at)}H{RIGHT}"/>'
        yield _text(RIGHT - 4, at - 5, f"{limit['name']} limit {length_in_words(limit['seconds'])}", "r e")


def _rail(windows: Sequence[Mapping[str, Any]], x: Scale) -> Iterator[str]:
    """Above the plot a cross for each window in which a request had no good answer."""
    bad = [sum(_ends(w, x)) / 2 for w in windows if w["errors"]]
    if bad:
        yield f'<path class="k" d="{"".join(f"M{_n(at - 3)} {TOP - 4}l6 6m0-6l-6 6" for at in bad)}"/>'
        yield _text(LEFT - 7, TOP + 3, "no answer", "e")


def _rates(windows: Sequence[Mapping[str, Any]], x: Scale, top: float) -> Iterator[str]:
    """What was sent a second, and in red the part of it that had no good answer."""
    most = max((w["n"] / w["seconds"] for w in windows), default=0.0) or 1.0

    def bars(kind: str, counted: str) -> str:
        tall = [(*_ends(w, x), STRIP * w[counted] / w["seconds"] / most) for w in windows]
        walks = (f"M{_n(a)} {_n(top + STRIP)}v{_n(-h)}H{_n(max(b - 0.6, a + 0.6))}v{_n(h)}z" for a, b, h in tall if h)
        return f'<path class="{kind}" d="{"".join(walks)}"/>'

    yield f'<path class="g" d="M{LEFT} {top}H{RIGHT}M{LEFT} {top + STRIP}H{RIGHT}"/>'
    yield _text(LEFT, top - 6, "requests a second, and in red those without a good answer", "")
    yield _text(LEFT - 7, top + 5, f"{most:,.0f}", "e") + _text(LEFT - 7, top + STRIP + 4, "0", "e")
    yield bars("a", "n") + bars("r", "errors")


def _touched(windows: Sequence[Mapping[str, Any]], x: Scale, bottom: float) -> Iterator[str]:
    """What a window says when it is pointed at; a browser shows it without any script."""
    for w in windows:
        worst = f", slowest {length_in_words(w['max'])}" if w["max"] is not None else ""
        errors = f", {w['errors']:,} without a good answer" if w["errors"] else ""
        said = f"{w['start']:g} s: {w['n']:,} requests, p50 {length_in_words(w['p50'])}, p99 {length_in_words(w['p99'])}{worst}{errors}"
        left, right = _ends(w, x)
        yield _box("h", left, TOP, right - left, bottom - TOP, said)


# Latency by percentile


def _unsupported(points: Sequence[Mapping[str, Any]], x: Scale) -> Iterator[str]:
    """Grey from the last percentile whose interval has an upper end."""
    beyond = next((k for k, point in enumerate(points) if not point["supported"]), None)
    if beyond is not None:
        start = x(points[max(beyond - 1, 0)]["q"])
        yield _box("n", start, TOP, RIGHT - start, BOTTOM - TOP, "beyond what this run can say")
        yield _text(RIGHT - 6, BOTTOM - 9, "grey: beyond what this run can say", "e")


def _interval(points: Sequence[Mapping[str, Any]], x: Scale, y: Scale) -> Iterator[str]:
    sure = [point for point in points if point["supported"]]
    if len(sure) > 1:
        upper = "L".join(f"{_n(x(p['q']))} {_n(y(p['interval'][1]))}" for p in sure)
        lower = "L".join(f"{_n(x(p['q']))} {_n(y(p['interval'][0]))}" for p in reversed(sure))
        yield f'<path class="b" d="M{upper}L{lower}z"/>'


def _curve(points: Sequence[Mapping[str, Any]], x: Scale, y: Scale) -> Iterator[str]:
    answered = [point for point in points if point["seconds"] is not None]
    if answered:
        dots = (f"{_n(x(p['q']))} {_n(y(p['seconds']))}" for p in answered)
        yield f'<path class="l" d="M{"L".join(dots)}"/>'
    if len(answered) < len(points):
        start = x(points[len(answered)]["q"])
        yield f'<path class="k" d="M{_n(start)} {TOP + 2}H{RIGHT}"/>' + _text(RIGHT - 4, TOP - 5, "no good answer", "r e")


def _judged(limits: Sequence[Mapping[str, Any]], x: Scale, y: Scale) -> Iterator[str]:
    """Each limit as the corner the curve must pass under, and what was observed at its percentile with the interval."""
    for limit in limits:
        at, top = x(limit["quantile"]), y(limit["seconds"])
        yield f'<path class="x" d="M{LEFT} {_n(top)}H{_n(at)}V{BOTTOM}"/>'
        yield _text(LEFT + 6, top - 6, f"{limit['name']} limit {length_in_words(limit['seconds'])}", "r")
        if limit["interval"]:
            low, high = (y(end) for end in limit["interval"])
            yield f'<path class="o" d="M{_n(at)} {_n(low)}V{_n(high)}m-5 0h10M{_n(at - 5)} {_n(low)}h10"/>'
        yield _dot(at, y(limit["observed"]))


# Small things


def _box(kind: str, x: float, y: float, wide: float, high: float, said: str) -> str:
    """A rectangle that says what it is when it is pointed at."""
    return f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(wide)}" height="{_n(high)}"><title>{safe(said)}</title></rect>'


def _dot(x: float, y: float) -> str:
    return f'<circle class="p" cx="{_n(x)}" cy="{_n(y)}" r="3.5"/>'


def alone(inner: str, high: float, title: str, about: str) -> str:
    """An SVG element that fits its place and tells a reader who cannot see it what it shows."""
    name = title.lower().replace(" ", "-")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="wk" viewBox="0 0 {WIDE} {_n(high)}" role="img" aria-labelledby="{name} {name}-about">'
    return f'{head}<title id="{name}">{safe(title)}</title><desc id="{name}-about">{safe(about)}</desc>{inner}</svg>'


def filed(svg: str) -> bytes:
    """The same as a file of its own, with its colours in it."""
    ground = f'<style>{COLOURS}{STYLE}</style><rect width="100%" height="100%" style="fill:var(--bg)"/>'
    return svg.replace("</desc>", f"</desc>{ground}", 1).encode() if svg else b""


def _text(x: float, y: float, words: str, kind: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{attribute}>{safe(words)}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def safe(words: object) -> str:
    """Text that can stand in a page or in XML: what cannot be printed is shown as such, and nothing in it is markup."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(words)))
