"""A comparison as one page that needs nothing else: the verdict, every number, and a picture of each column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from checks._picture import STYLE as PICTURES
from checks._picture import Shape, alone, column, safe

STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2rem auto;padding:0 1rem;background:#fff}"
    "body{color:#1f2328}h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.05rem;margin:2rem 0 .5rem}.fail{color:#cf222e}.ok{color:#1a7f37}"
    ".warn,.nodata{color:#9a6700}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}"
    "td,th{padding:.15rem .7rem .15rem 0;text-align:right;white-space:nowrap}td:first-child,td:last-child,th:last-child{text-align:left}"
    "th{color:#59636e;font-weight:500}.sheet{display:flex;flex-wrap:wrap;gap:.6rem 1rem}.drifted{font-weight:600}.key{color:#59636e}"
    ".key b{display:inline-block;width:.8rem;height:.8rem}.key .r{background:#b4bec9}.key .l{background:#0969da}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,.key{color:#9198a1}.fail{color:#ff7b72}.ok{color:#3fb950}"
    ".warn,.nodata{color:#d29922}.key .r{background:#57606a}.key .l{background:#4da3ff}}"
)
MEASURES = {
    "psi": "PSI",
    "js_distance": "Jensen-Shannon",
    "kl": "KL",
    "hellinger": "Hellinger",
    "wasserstein_sd": "Wasserstein / sd",
    "energy": "energy",
}
KEY = '<p class="key"><b class="r"></b> reference &nbsp; <b class="l"></b> live &nbsp; {}</p>'


def page(status: str, reason: str, told: Mapping[str, Any], shapes: Mapping[str, Shape | None]) -> str:
    """`told` is what compare.json holds; `shapes` what is drawn, by name of comparison, in the order to draw it."""
    lines = {line["name"]: line for line in told["comparisons"]}
    ends = "the outermost 0.5 % of rows on each side are counted in the cells at the ends"
    body = [
        f'<h1><span class="{safe(status)}">{safe(status)}</span> drift.compare</h1><p>{safe(reason)}</p>',
        f'<h2>Comparisons</h2><div class="scroll">{"".join(_table(lines, shapes, told))}</div>',
        f"<h2>Columns</h2>{KEY.format(ends)}" if shapes else "",
        f'<div class="sheet">{"".join(_pictures(lines, shapes))}</div>',
        "<h2>Not compared</h2><ul>" + "".join(f"<li>{safe(note['name'])}: {safe(note['why'])}</li>" for note in told["not_compared"]) + "</ul>"
        if told["not_compared"]
        else "",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>drift.compare: {safe(status)}</title>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}<style>{STYLE}{PICTURES}</style></head><body>{"".join(body)}</body></html>\n'


def _table(lines: Mapping[str, Any], order: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    some = [name for name in MEASURES if any((line.get("distances") or {}).get(name) is not None for line in lines.values())]
    heads = ["", "effect", "95 % interval", "limit", "p adjusted", *(MEASURES[name] for name in some), "live", "reference", "how"]
    yield "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for line in lines.values():
        measures = [_number((line.get("distances") or {}).get(name)) for name in some]
        interval = f"{line['interval'][0]:.3f} to {line['interval'][1]:.3f}"
        rows = [f"{line['n']:,}", f"{line['n_reference']:,}"]
        cells = [
            safe(line["name"]),
            f"{line['effect']:.3f}",
            interval,
            f"{line['limit']:g}",
            _p(line["p_adjusted"]),
            *measures,
            *rows,
            line["how"],
        ]
        yield f"<tr{' class=drifted' if line['drifted'] else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _p(value: float) -> str:
    return "&lt; 1e-99" if value < 1e-99 else f"{value:.2g}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _pictures(lines: Mapping[str, Any], shapes: Mapping[str, Shape | None]) -> Iterator[str]:
    return (alone(column(name, caption(lines[name]), shape), style=False) for name, shape in shapes.items())


def caption(line: Mapping[str, Any]) -> str:
    """What is said under a column's name: how far it moved, with its interval, and its limit."""
    moved = f"{line['effect']:.2f} ({line['interval'][0]:.2f} to {line['interval'][1]:.2f}), limit {line['limit']:g}"
    return f"DRIFTED by {moved}" if line["drifted"] else f"moved by {moved}"
