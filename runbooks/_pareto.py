"""The picture of variants: how fast each is against its size, and against what it loses. Up and to the left is better in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

WIDE, TOP, BOTTOM = 960, 44, 320
PANELS = ((64, 452), (544, 932))  # left and right of each plot
LINE = 19  # of the key below
LEAST_LOSS = 1e-5  # what loses less is drawn as losing this
STYLE = (
    ".wk{font:12px system-ui,sans-serif}.wk .bg{fill:#fff}.wk text{fill:#59636e}.wk .t{fill:#1f2328;font-weight:600}.wk .e{text-anchor:end}"
    ".wk .c{text-anchor:middle}.wk .g{stroke:#d8dee4;fill:none}.wk .m{stroke:#59636e;stroke-dasharray:2 3;fill:none}"
    ".wk .x{stroke:#cf222e;stroke-width:1.4;stroke-dasharray:6 4;fill:none}.wk text.r{fill:#cf222e}.wk .i{stroke-width:1.6;stroke:#59636e}"
    ".wk .chosen{fill:#0969da;stroke:#0969da}.wk .good,.wk .refused{fill:#fff;stroke:#0969da;stroke-width:1.6}.wk .refused{stroke:#cf222e}"
    ".wk .plain{fill:#59636e;stroke:#59636e}.wk text.on{fill:#fff;font-weight:600;font-size:11px}.wk text.in{fill:#1f2328;font-size:11px}"
    "@media(prefers-color-scheme:dark){.wk .bg,.wk .good,.wk .refused{fill:#0d1117}.wk text{fill:#9198a1}.wk .t,.wk text.in{fill:#e6edf3}"
    ".wk .g{stroke:#30363d}.wk .chosen{fill:#4da3ff;stroke:#4da3ff}.wk .good{stroke:#4da3ff}.wk .refused,.wk .x{stroke:#ff7b72}"
    ".wk text.r{fill:#ff7b72}.wk text.on{fill:#0d1117}.wk .i,.wk .m{stroke:#9198a1}.wk .plain{fill:#9198a1;stroke:#9198a1}}"
)
LOST = {"classes": "answers that differ", "vectors": "1 minus mean cosine", "numbers": "variance that is lost"}
Scale = Callable[[float], float]


def pareto(told: Mapping[str, Any]) -> str:
    """An SVG that stands alone: two plots that share the axis of speed, and a key."""
    drawn = [one for one in told["variants"] if "slowest" in one]
    y, ticks = _log([value for one in drawn for value in one["slowest"]] + [1.0], BOTTOM, TOP)
    limits = told["limits"]
    shares = _linear(max(1.05, *(one["share"] for one in drawn)), *PANELS[0])
    losses, decades = _losses(drawn, limits["least"])
    parts = [
        *_panel(0, "size, as a part of the graph's own", y, ticks, [(x, f"{x:g}") for x in (0.0, 0.25, 0.5, 0.75, 1.0)], shares),
        *_panel(1, LOST[told["judged_by"]], y, ticks, [(x, _loss_in_words(x)) for x in decades], losses),
        *_limit(shares(limits["largest"]), "largest"),
        *_limit(losses(1 - limits["least"]), "least"),
        *(mark for n, one in enumerate(drawn) for mark in _point(n, one, shares(one["share"]), y)),
        *(mark for n, one in enumerate(drawn) for mark in _point(n, one, losses(1 - one["quality"]["kept"]), y)),
        *_key(drawn),
    ]
    high = BOTTOM + 64 + LINE * len(drawn)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="wk" role="img" viewBox="0 0 {WIDE} {high}" width="{WIDE}" height="{high}">'
    about = "<title>Speed against size, and against what is lost; up and to the left is better</title>"
    return f'{head}{about}<style>{STYLE}</style><rect class="bg" width="{WIDE}" height="{high}"/>{"".join(parts)}</svg>\n'


def _log(values: Sequence[float], bottom: float, top: float) -> tuple[Scale, list[float]]:
    """Speeds on a log axis, and the round ones that are marked."""
    low, high = min(values) / 1.15, max(values) * 1.15
    marks = [mark * 10.0**power for power in range(-4, 5) for mark in (1, 1.5, 2, 3, 5)]
    return lambda value: bottom - (bottom - top) * math.log(value / low) / math.log(high / low), [mark for mark in marks if low <= mark <= high]


def _linear(high: float, left: float, right: float) -> Scale:
    return lambda value: left + (right - left) * value / high


def _losses(drawn: Sequence[Mapping[str, Any]], least: float) -> tuple[Scale, list[float]]:
    """What is lost on a log axis, from next to nothing on."""
    left, right = PANELS[1]
    most = max(1 - least, LEAST_LOSS * 10, *(1 - one["quality"]["kept"] for one in drawn)) * 1.5
    reach = math.log(most / LEAST_LOSS)

    def x(loss: float) -> float:
        return left + 16 + (right - left - 16) * math.log(max(loss, LEAST_LOSS) / LEAST_LOSS) / reach

    return x, [10.0**power for power in range(-5, 1) if 10.0**power <= most]


def _loss_in_words(loss: float) -> str:
    return "≤ 0.001 %" if loss <= LEAST_LOSS * 1.01 else f"{loss * 100:.3g} %"


def _panel(place: int, what: str, y: Scale, ticks: Sequence[float], marks: Sequence[tuple[float, str]], x: Scale) -> Iterator[str]:
    left, right = PANELS[place]
    yield _text(left, 20, "times as fast, at its slowest batch size", "t") if not place else ""
    yield f'<path class="g" d="M{left} {TOP}V{BOTTOM}H{right}{"".join(f"M{left} {_n(y(mark))}H{right}" for mark in ticks)}"/>'
    yield from (_text(left - 7, y(mark) + 4, f"{mark:g}x", "e") for mark in ticks)
    yield f'<path class="m" d="M{left} {_n(y(1.0))}H{right}"/>'
    yield from (_text(x(value), BOTTOM + 17, words, "c") for value, words in marks)
    yield _text((left + right) / 2, BOTTOM + 36, what, "c t")


def _limit(at: float, name: str) -> Iterator[str]:
    yield f'<path class="x" d="M{_n(at)} {TOP}V{BOTTOM}"/>' + _text(at, TOP - 6, name, "r c")


def _point(n: int, one: Mapping[str, Any], x: float, y: Scale) -> Iterator[str]:
    """A dot with its number, and the interval of its speed."""
    middle, low, high = (y(value) for value in one["slowest"])
    kind = one["outcome"] or "plain"
    said = f"{one['name']}: {one['share']:.2f}x the size, {one['slowest'][0]:.2f}x as fast, {one['quality']['in_words']}"
    yield f'<path class="i" d="M{_n(x)} {_n(low)}V{_n(high)}"/>'
    yield f'<circle class="{escape(kind)}" cx="{_n(x)}" cy="{_n(middle)}" r="8"><title>{_safe(said)}</title></circle>'
    yield _text(x, middle + 4, str(n), "c on" if kind in ("chosen", "plain") else "c in")


def _key(drawn: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    left = PANELS[0][0]
    for n, one in enumerate(drawn):
        at = BOTTOM + 62 + LINE * n
        said = f"{one['name']}{' (' + one['outcome'] + ')' if one['outcome'] else ''}"
        yield f'<circle class="{escape(one["outcome"] or "plain")}" cx="{left}" cy="{at - 4}" r="7"/>'
        yield _text(left, at, str(n), "c on" if one["outcome"] in ("chosen", "") else "c in") + _text(left + 14, at, said, "t")
        yield _text(left + 330, at, f"{one['share']:.2f}x the size, {one['slowest'][0]:.2f}x as fast, {one['quality']['in_words']}", "")


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kind}">{_safe(words)}</text>' if words else ""


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _safe(words: str) -> str:
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words))
