"""Where an inference's time goes, as one page that needs nothing else: what is recommended, the operators, and the curve over batch sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from checks._page import STYLE
from checks._picture import STYLE as PICTURES
from checks._picture import alone, safe

WIDE, ROW, LEFT, RIGHT = 860, 24, 230, 800
TOP, BOTTOM = 34, 230
MOST = 12  # operators drawn
MORE = "main{max-width:60rem}.sure{font-weight:600}svg{max-width:100%;height:auto}th:first-child{text-align:left}"


def page(status: str, reason: str, told: Mapping[str, Any]) -> str:
    """`told` is what profile.json holds."""
    first, *rest = reason.splitlines()
    body = [
        f'<h1><span class="{safe(status)}">{safe(status)}</span> serving.profile</h1><p>{safe(first)}</p>',
        *(f"<p class=key>{safe(line)}</p>" for line in rest),
        f"<h2>Operators at batch {told['operators']['batch']}</h2>{operators(told)}",
        f"<h2>Batch sizes</h2>{curve(told)}{_scroll(_batches(told))}",
        f"<h2>Other settings</h2>{_scroll(_settings(told))}",
        f"<h2>Single operators</h2>{_scroll(_nodes(told))}",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{safe(str(told["model"]))}: where the time goes</title>'
    return (
        f'<!DOCTYPE html><html lang="en"><head>{head}<style>{STYLE}{PICTURES}{MORE}</style></head><body><main>{"".join(body)}</main></body></html>\n'
    )


def operators(told: Mapping[str, Any], style: bool = False) -> str:
    """A bar for each kind of operator, by its share of the time; the rest as one."""
    kinds = list(told["operators"]["kinds"])
    if len(kinds) > MOST:
        rest = kinds[MOST - 1 :]
        kinds = [*kinds[: MOST - 1], {"name": f"{len(rest)} others", "share": sum(one["share"] for one in rest)}]
    most = max(one["share"] for one in kinds) or 1.0
    parts = []
    for place, one in enumerate(kinds):
        y, width = 8 + ROW * place, (RIGHT - LEFT) * one["share"] / most
        parts.append(f'<text class="e" x="{LEFT - 8}" y="{y + 14}">{safe(one["name"][:32])}</text>')
        parts.append(f'<rect class="b" x="{LEFT}" y="{y + 3}" width="{max(1.0, width):.1f}" height="{ROW - 8}"/>')
        parts.append(f'<text class="m" x="{LEFT + width + 6:.1f}" y="{y + 14}">{one["share"]:.1%}</text>')
    return alone("".join(parts), WIDE, 16 + ROW * len(kinds), style)


def curve(told: Mapping[str, Any], style: bool = False) -> str:
    """Milliseconds an answer and rows a second over batch sizes, both on log axes; bars are 95 % intervals of the median."""
    batches = told["batches"]
    half = (WIDE - 120) // 2
    left = _line(batches, 60, half - 30, [1000 * one["p50"] for one in batches], "ms for the batch", [_ends(one, 1000) for one in batches])
    right = _line(batches, half + 120, half - 30, [one["rate"] for one in batches], "rows a second", [None for _ in batches])
    return alone("".join([*left, *right]), WIDE, BOTTOM + 34, style)


def _ends(one: Mapping[str, Any], scale: float) -> tuple[float, float] | None:
    low, high = one["interval"]
    return None if low is None or high is None else (scale * low, scale * high)


def _line(
    batches: Sequence[Mapping[str, Any]], at: int, wide: int, values: Sequence[float], title: str, bars: Sequence[tuple[float, float] | None]
) -> Iterator[str]:
    sizes, ends = [one["size"] for one in batches], [end for bar in bars if bar for end in bar]
    low, high = min(*values, *ends, math.inf), max(*values, *ends, 0.0)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (math.log(value / low) / math.log(high / low) if high > low else 0.5)

    def x(size: float) -> float:
        return at + wide * (math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0]) if sizes[-1] > sizes[0] else 0.5)

    yield f'<text class="h" x="{at}" y="16">{title}</text><line class="g" x1="{at}" x2="{at + wide}" y1="{BOTTOM}" y2="{BOTTOM}"/>'
    yield from (f'<text class="m e" x="{at - 6}" y="{y(value) + 4:.1f}">{value:.3g}</text>' for value in sorted({low, high}))
    yield '<path class="l" d="M' + "L".join(f"{x(size):.1f} {y(value):.1f}" for size, value in zip(sizes, values, strict=True)) + '"/>'
    for size, value, bar in zip(sizes, values, bars, strict=True):
        if bar:
            yield f'<line class="l" x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{y(bar[0]):.1f}" y2="{y(bar[1]):.1f}"/>'
        yield f'<circle class="b" cx="{x(size):.1f}" cy="{y(value):.1f}" r="3.5"/><text class="m c" x="{x(size):.1f}" y="{BOTTOM + 16}">{size}</text>'


def _scroll(parts: Iterator[str]) -> str:
    return f'<div class="scroll"><table>{"".join(parts)}</table></div>'


def _row(cells: Sequence[str], word: str = "td", kind: str = "") -> str:
    return f"<tr{f' class={kind}' if kind else ''}>" + "".join(f"<{word}>{safe(cell)}</{word}>" for cell in cells) + "</tr>"


def _batches(told: Mapping[str, Any]) -> Iterator[str]:
    yield _row(["batch", "p50", "95 % interval", "p99", "rows a second", "memory"], "th")
    for one in told["batches"]:
        ends = _ends(one, 1000)
        between = "" if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g} ms"
        memory = "" if one["memory"] is None else f"{one['memory'] / 2**20:,.1f} MiB"
        yield _row([str(one["size"]), f"{1000 * one['p50']:.3g} ms", between, f"{1000 * one['p99']:.3g} ms", f"{one['rate']:,.0f}", memory])


def _settings(told: Mapping[str, Any]) -> Iterator[str]:
    sizes = [str(one["size"]) for one in told["batches"]]
    yield _row(["setting", *(f"times as fast at batch {size}" for size in sizes), ""], "th")
    for one in told["settings"]:
        if one["outcome"] == "broken":
            yield _row([one["setting"], *("" for _ in sizes), f"broken: {one['why']}"])
        else:
            spans = ["{:.2f} ({:.2f} to {:.2f})".format(*one["ratios"][size]) for size in sizes]
            saved = f", saves {one['gain']:.0%} at least" if one["outcome"] == "faster" else ""
            yield _row([one["setting"], *spans, one["outcome"] + saved], kind="sure" if one["outcome"] == "faster" else "")


def _nodes(told: Mapping[str, Any]) -> Iterator[str]:
    yield _row(["operator", "kind", "share"], "th")
    yield from (_row([one["name"], one["operator"], f"{one['share']:.1%}"]) for one in told["operators"]["nodes"])
