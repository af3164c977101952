"""Small pictures by hand, as SVG made of counts alone: two distributions laid over each other, bars in pairs, and a line with its limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDE, HIGH = 360, 168  # one picture
LEFT, RIGHT, TOP, BOTTOM = 40, 350, 40, 146  # the plot in it
EXACT = 2.0**52  # up to which there are numbers between whole ones
KEY = 24  # what stands above several of them
CELLS = 30
TAILS = 0.005  # the share of rows on each end that may fall beyond the drawn range
ROWS = 5  # a category seen less often has no name in a picture: it might be a person's
NAMED = 7  # categories drawn
LONGEST = 40  # characters of a name

STYLE = (
    ".wk{font:11px system-ui,sans-serif}.wk .bg{fill:#fff}.wk text{fill:#1f2328}.wk .m{fill:#59636e}.wk .g{stroke:#d1d9e0}"
    ".wk .r{fill:#b4bec9}.wk .l{fill:none;stroke:#0969da;stroke-width:1.6}.wk .b{fill:#0969da}.wk .x{stroke:#cf222e;stroke-dasharray:4 3}"
    ".wk .h{font-weight:600;font-size:12px}.wk .e{text-anchor:end}.wk .c{text-anchor:middle}"
    "@media(prefers-color-scheme:dark){.wk .bg{fill:#0d1117}.wk text{fill:#e6edf3}.wk .m{fill:#9198a1}.wk .g{stroke:#3d444d}"
    ".wk .r{fill:#57606a}.wk .l{stroke:#4da3ff}.wk .b{fill:#4da3ff}.wk .x{stroke:#ff7b72}}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a picture of one column is drawn from: rows of either side between each two edges, or by name of category."""

    live: tuple[int, ...]
    reference: tuple[int, ...]
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


def steps(live: Any, reference: Any) -> Shape | None:
    """Counts of two sorted arrays over equal cells that hold all but the outermost of both; those are counted in the cells at the ends."""
    import numpy as np

    cut = edges(live, reference)
    if cut is None:
        return None
    ours, theirs = (np.diff([0, *np.searchsorted(rising, cut[1:-1], side="left").tolist(), len(rising)]).tolist() for rising in (live, reference))
    return Shape(tuple(ours), tuple(theirs), tuple(cut))


def edges(live: Any, reference: Any) -> list[float] | None:
    """Equal cells between the ends of both, or None where these are too far apart to draw."""
    ends = [end for rising in (live, reference) for end in _ends(rising)]
    if not ends or not math.isfinite(max(ends) - min(ends)):
        return None
    low, high = min(ends), max(ends)
    if max(abs(low), abs(high)) < EXACT and all(value.is_integer() for rising in (live, reference) for value in _some(rising)):
        width = max(1, math.ceil((high - low + 1) / CELLS))  # whole numbers: a cell holds as many of them as any other
        return [low - 0.5 + width * cell for cell in range(math.ceil((high - low + 1) / width) + 1)]
    reach = high - low or max(1.0, abs(low)) / 10
    low = low if high > low else low - reach / 2
    return [low + reach * (cell / CELLS) for cell in range(CELLS + 1)]


def _ends(rising: Any) -> list[float]:
    some = _some(rising, TAILS)
    return [min(some), max(some)] if some else []


def _some(rising: Any, tails: float = 0.0) -> list[float]:
    """Two hundred of the finite values, evenly by rank, without the tails."""
    last = len(rising) - 1
    places = {round(last * (tails + (1 - 2 * tails) * k / 199)) for k in range(200)}
    return [value for place in sorted(places) if math.isfinite(value := float(rising[place]))]


def bars(live: Mapping[str, int], reference: Mapping[str, int]) -> Shape:
    """Counts of the categories that are commonest on both sides together; all others, and those too rare to be named, as one."""
    both = sorted({*live, *reference}, key=lambda key: (-live.get(key, 0) - reference.get(key, 0), key))
    named = [key for key in both[:NAMED] if live.get(key, 0) + reference.get(key, 0) >= ROWS]
    ours, theirs = ([side.get(key, 0) for key in named] for side in (live, reference))
    others = sum(live.values()) - sum(ours), sum(reference.values()) - sum(theirs)
    if sum(others):
        left = len(both) - len(named)
        named, ours, theirs = [*named, f"({left} other{'s' if left > 1 else ''})"], [*ours, others[0]], [*theirs, others[1]]
    return Shape(tuple(ours), tuple(theirs), names=tuple(named))


# Drawing


def column(title: str, said: str, shape: Shape | None) -> str:
    """One column as a <g> of WIDE by HIGH: what it is called, a line about it, and the reference (filled) under live (a line, or darker bars)."""
    drawn = _nothing() if shape is None else _histogram(shape) if shape.edges else _pairs(shape)
    return f"<g>{_text(10, 16, cut(title), 'h')}{_text(10, 31, said, 'm')}{''.join(drawn)}</g>"


def sheet(columns: Sequence[str], across: int = 2) -> str:
    """Several pictures as one SVG that stands alone, with a line on top that says which side is which."""
    wide, high = WIDE * min(across, len(columns)), HIGH * math.ceil(len(columns) / across) + KEY
    placed = (f'<g transform="translate({WIDE * (n % across)},{HIGH * (n // across) + KEY})">{one}</g>' for n, one in enumerate(columns))
    sides = f'<rect class="r" x="10" y="6" width="11" height="11"/>{_text(26, 16, "reference", "m")}'
    sides += f'<rect class="b" x="92" y="6" width="11" height="11"/>{_text(108, 16, "live", "m")}'
    return alone(sides + "".join(placed), wide, high)


def alone(inner: str, wide: int = WIDE, high: int = HIGH, style: bool = True) -> str:
    """An SVG element, readable on light and on dark; without its style where the page around it has it once for all."""
    ground = f'<style>{STYLE}</style><rect class="bg" width="{wide}" height="{high}"/>' if style else ""
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="wk" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">{ground}{inner}</svg>'


def _nothing() -> Iterator[str]:
    yield _text(LEFT, 90, "nothing finite to draw", "m")


def _histogram(shape: Shape) -> Iterator[str]:
    shares = [[count / max(1, sum(side)) for count in side] for side in (shape.reference, shape.live)]
    most = max(map(max, shares))
    low, high = shape.edges[0], shape.edges[-1]
    at = [LEFT + (RIGHT - LEFT) * ((edge - low) / (high - low)) for edge in shape.edges]
    yield from _axes(most)
    for side, kind in zip(shares, ("r", "l"), strict=True):
        heights = [BOTTOM - (BOTTOM - TOP) * share / most for share in side]
        walk = "".join(f"V{_n(height)}H{_n(right)}" for height, right in zip(heights, at[1:], strict=True))
        yield f'<path class="{kind}" d="M{_n(at[0])} {BOTTOM}{walk}V{BOTTOM}"/>'
    for x, value, kind in ((LEFT, low, "m"), ((LEFT + RIGHT) / 2, (low + high) / 2, "m c"), (RIGHT, high, "m e")):
        yield _text(x, BOTTOM + 14, f"{value:.3g}", kind)


def _axes(most: float) -> Iterator[str]:
    yield f'<path class="g" d="M{LEFT} {BOTTOM}H{RIGHT}M{LEFT} {TOP}H{RIGHT}"/>'
    yield _text(LEFT - 5, TOP + 4, _percent(most), "m e") + _text(LEFT - 5, BOTTOM + 4, "0", "m e")


def _pairs(shape: Shape) -> Iterator[str]:
    n, m = max(1, sum(shape.live)), max(1, sum(shape.reference))
    most = max(*(count / n for count in shape.live), *(count / m for count in shape.reference))
    start, each = 130, min(30.0, (BOTTOM + 16 - TOP) / len(shape.names))
    for place, (name, ours, theirs) in enumerate(zip(shape.names, shape.live, shape.reference, strict=True)):
        y, thick, long = TOP + each * place, min(7.0, each * 0.42), (RIGHT - 90 - start) / most
        yield _text(start - 5, y + thick + 3, cut(name, 20), "e")
        yield f'<rect class="r" x="{start}" y="{_n(y)}" width="{_n(theirs / m * long)}" height="{_n(thick)}"/>'
        yield f'<rect class="b" x="{start}" y="{_n(y + thick)}" width="{_n(ours / n * long)}" height="{_n(thick)}"/>'
        yield _text(start + max(ours / n, theirs / m) * long + 4, y + thick + 3, f"{_percent(theirs / m)} → {_percent(ours / n)}", "m")


def path(values: Sequence[float], limit: float, title: str, said: str = "", log: bool = False, labels: tuple[str, str] = ("", "")) -> str:
    """A line through the values of one window after the other, and the limit it should stay on one side of; an SVG that stands alone.

    `labels` stand under its first and its last window. On a log scale what is not above zero is drawn at the bottom; what is not finite is left out.
    """
    drawn = [limit, *(value for value in values if math.isfinite(value))]
    scale = _scale(drawn, log)
    high, low = max(map(scale, drawn)), min(map(scale, drawn))
    across = (RIGHT - LEFT) / max(1, len(values) - 1)

    def y(value: float) -> str:
        return _n(BOTTOM - (BOTTOM - TOP) * (scale(value) - low) / (high - low or 1.0))

    dots = [f"{_n(LEFT + across * place)} {y(value)}" for place, value in enumerate(values) if math.isfinite(value)]
    line = f'<path class="l" d="M{"L".join(dots)}"/>' if len(dots) > 1 else "".join(_dot(dot) for dot in dots)
    edge = y(limit)
    parts = [
        _text(10, 16, cut(title), "h") + _text(10, 31, said, "m") + f'<path class="g" d="M{LEFT} {BOTTOM}H{RIGHT}"/>',
        _text(LEFT - 5, TOP + 4, _short(max(drawn)), "m e") + _text(LEFT - 5, BOTTOM + 4, _short(min(drawn)), "m e"),
        f'<path class="x" d="M{LEFT} {edge}H{RIGHT}"/>' + _text(LEFT + 6, max(TOP + 12.0, float(edge) - 4), f"limit {limit:,.4g}", "m"),
        line + _text(LEFT, BOTTOM + 14, labels[0], "m") + _text(RIGHT, BOTTOM + 14, labels[1], "m e"),
    ]
    return alone("".join(parts))


def _scale(drawn: Sequence[float], log: bool) -> Any:
    least = min((value for value in drawn if value > 0), default=1.0)
    return (lambda value: math.log10(max(value, least))) if log else (lambda value: value)


def _short(value: float) -> str:
    return f"{value:.0e}".replace("e+0", "e") if abs(value) >= 1e4 else f"{value:.3g}"


def _dot(at: str) -> str:
    x, y = at.split()
    return f'<circle class="b" cx="{x}" cy="{y}" r="2.5"/>'


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kind}">{safe(words)}</text>' if words else ""


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %" if share >= 0.1 or not share else f"{share * 100:.1f} %" if share >= 0.001 else "< 0.1 %"


def cut(name: str, longest: int = LONGEST) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def safe(words: str) -> str:
    """Text that can stand in a page: what cannot be printed is shown as such, and nothing in it is markup."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words))
