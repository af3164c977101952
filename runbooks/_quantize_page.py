"""A job of quantizing as one page that needs nothing else: the outcome, the picture, every number, what was refused and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from runbooks._pareto import pareto

STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.55 system-ui,sans-serif;max-width:1040px;margin:0 auto;padding:2rem 1.25rem 4rem}"
    "body{background:#fff;color:#1f2328}h1{font-size:1.35rem;line-height:1.3;margin:.9rem 0 .4rem;overflow-wrap:anywhere}"
    "h2{font-size:1.05rem;margin:2.4rem 0 .4rem}p{margin:.35rem 0;max-width:80ch;overflow-wrap:anywhere}.dim,th{color:#59636e}"
    ".badge{display:inline-block;font-weight:700;letter-spacing:.05em;border:2px solid;border-radius:6px;padding:.1rem .6rem}"
    ".better,.chosen{color:#1a7f37}.none,.refused,.broken{color:#cf222e}.unknown{color:#9a6700}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;margin:.5rem 0}"
    "td,th{padding:.28rem .75rem .28rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid #d8dee4;vertical-align:top}"
    "th{font-weight:500}td:first-child,th:first-child,.said{text-align:left}.said{white-space:normal;min-width:16rem}"
    "svg{display:block;width:100%;min-width:660px;height:auto;margin:.6rem 0}figure{margin:0;overflow-x:auto}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.dim,th{color:#9198a1}td,th{border-color:#30363d}"
    ".better,.chosen{color:#3fb950}.none,.refused,.broken{color:#ff7b72}.unknown{color:#d29922}}"
)
WORDS = {"better": "BETTER", "none": "NONE IS BETTER", "unknown": "COULD NOT TELL"}


def page(told: Mapping[str, Any]) -> str:
    """The whole page."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>watchkeeper quantize</title>'
    body = "".join(part for make in (_outcome, _picture, _measured, _answers, _refused, _layers) for part in make(told))
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n'


def _outcome(told: Mapping[str, Any]) -> Iterator[str]:
    champion, rows, machine = told["champion"], told["rows"], told["machine"]
    yield f'<span class="badge {_safe(told["outcome"])}">{WORDS[told["outcome"]]}</span><h1>{_safe(told["why"])}</h1>'
    held = ", ".join(f"{n} {name}" for name, n in sorted(champion["operators"].items(), key=lambda one: (-one[1], one[0]))[:8])
    yield f'<p class="dim">{_mib(champion["size"])}, opset {champion["opset"]}: {_safe(held)}<br>'
    yield f"{rows['calibration']:,} rows calibrated, {rows['compared']:,} compared; timed on {_safe(_where(machine))}, "
    yield f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}, all variants in turn</p>"


def _where(machine: Mapping[str, Any]) -> str:
    return str(machine["processor"]) if machine["device"] == "cpu" else f"{machine['device'].upper()}, beside {machine['processor']}"


def _picture(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>Speed against size and quality</h2><figure>{pareto(told)}</figure>"
    yield '<p class="dim">Up and to the left is better. Bars are 95 % intervals of the paired ratio; red lines are the limits.</p>'


def _measured(told: Mapping[str, Any]) -> Iterator[str]:
    sizes = list(next(iter(told["variants"]))["speed"])
    heads = ["", "size", "memory", *(f"{what}, batch {size}" for size in sizes for what in ("p50", "p99", "times as fast"))]
    yield f"<h2>Size, memory and latency</h2>{_table(heads, [_row(one, sizes) for one in _whole(told)])}"


def _row(one: Mapping[str, Any], sizes: Sequence[str]) -> list[str]:
    memory = "" if one["memory"] is None else _mib(one["memory"])
    cells = [one["name"], f"{_mib(one['size'])} ({one['share']:.2f}x)", memory]
    for size in sizes:
        speed = one["speed"][size]
        middle, low, high = speed["ratio"]
        cells += [_ms(speed["p50"]), _ms(speed["p99"]), f"{middle:.2f} ({low:.2f} to {high:.2f})" if one["outcome"] else ""]
    return cells


def _answers(told: Mapping[str, Any]) -> Iterator[str]:
    labelled = any(one["quality"]["before"] is not None for one in _whole(told))
    heads = [
        "",
        "judged by",
        "cosine, mean",
        "cosine, least",
        "largest difference",
        "signal to noise",
        *(["right", "lost / won"] if labelled else []),
    ]
    yield f"<h2>Answers, against those of the graph as it is</h2>{_table(heads, [_quality(one, labelled) for one in _whole(told)])}"


def _quality(one: Mapping[str, Any], labelled: bool) -> list[str]:
    quality = one["quality"]
    mean, least = quality["cosine"]
    right = [f"{quality['after']:.2%}", f"{quality['lost']} / {quality['won']}"] if labelled else []
    return [one["name"], quality["in_words"], f"{mean:.5f}", f"{least:.5f}", f"{quality['worst']:.3g}", f"{quality['fidelity']:.1f} dB", *right]


def _refused(told: Mapping[str, Any]) -> Iterator[str]:
    rows = [[one["name"], one["outcome"], one["why"] or one["tried"]] for one in told["variants"] if one["outcome"]]
    rows += [[name, "not tried", why] for name, why in told["untried"].items()]
    yield f"<h2>What became of each</h2>{_table(['', '', 'why'], rows, said=2)}"


def _layers(told: Mapping[str, Any]) -> Iterator[str]:
    if told["layers"]:
        rows = [[one["name"], one["operator"], f"{one['decibels']:.1f} dB"] for one in told["layers"][:12]]
        yield f"<h2>Operators that suffer most from eight bits</h2>{_table(['', 'operator', 'signal to noise'], rows)}"


def _whole(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in told["variants"] if "speed" in one]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], said: int | None = None) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=said' if n == said else ''}>{_safe(cell)}</{tag}>" for n, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(heads, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:,.0f} KiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def _safe(words: str) -> str:
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words))
