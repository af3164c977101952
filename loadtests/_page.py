"""A load test as one page that needs nothing else: no network, no script. Drawn from its `summary` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtests._drawing import COLOURS, by_percentile, over_time, safe
from loadtests._drawing import STYLE as PICTURES
from loadtests._summary import PARTS, length_in_words, sent_in_words

WORDS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "invalid": "INVALID", "aborted": "ABORTED"}
MEANING = {
    "lag": ("Generator lag", "from when the schedule said until the generator took it up: the generator's own fault, never the server's"),
    "queue": ("Wait for a connection", "all connections were in use: the server answered too slowly for them, or there are too few"),
    "server": ("Server", "from the first byte sent to the whole answer"),
    "latency": ("Latency", "from when the schedule said to the whole answer: what is judged"),
}
KIND_WORDS = {
    "good": "good",
    "status": "wrong status",
    "timeout": "timed out",
    "connect": "no connection",
    "protocol": "broken answer",
    "invalid": "not the answer expected",
    "unfinished": "unfinished at the end",
}
STYLE = (
    "*{box-sizing:border-box}"
    "body{font:15px/1.55 system-ui,sans-serif;max-width:1040px;margin:0 auto;padding:2rem 1.25rem 4rem;background:var(--bg);color:var(--ink)}"
    "h1{font-size:1.35rem;line-height:1.3;margin:.9rem 0 .4rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2.4rem 0 .4rem}"
    "p{margin:.35rem 0;max-width:75ch;overflow-wrap:anywhere}"
    ".badge{display:inline-block;font-weight:700;letter-spacing:.05em;border:2px solid;border-radius:6px;padding:.1rem .6rem}"
    ".pass{color:var(--green)}.fail{color:var(--red)}.inconclusive,.invalid,.aborted{color:var(--amber)}.dim{color:var(--dim)}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:1.3rem 0;padding:0;list-style:none}"
    ".tiles li{flex:1 1 9rem;background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:.6rem .8rem}"
    ".tiles b{display:block;font-size:1.3rem;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}"
    ".tiles span{color:var(--dim);font-size:.82rem}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;margin:.5rem 0}"
    "td,th{padding:.28rem .75rem .28rem 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid);vertical-align:top}"
    "th{color:var(--dim);font-weight:500}"
    "td:first-child,th:first-child,.said{text-align:left}.said{white-space:normal;min-width:16rem;padding-right:0}tbody th{color:var(--ink)}"
    "figure{margin:0;overflow-x:auto}"
    "svg{display:block;width:100%;min-width:660px;height:auto;margin:.6rem 0}"
    "summary{cursor:pointer;color:var(--dim)}details[open] summary{margin-bottom:.5rem}"
    ".key{color:var(--dim);font-size:13px;max-width:none}"
    ".key i{display:inline-block;width:1rem;height:.65rem;background:var(--blue);margin:0 .25rem 0 .8rem}.key i:first-child{margin-left:0}"
    "footer{margin-top:3rem;border-top:1px solid var(--grid);padding-top:.8rem;font-size:13px;color:var(--dim)}"
    "@media print{body{padding:0;font-size:12px;max-width:none}section,figure,tr{break-inside:avoid}"
    ".badge,.key i,svg *{print-color-adjust:exact;-webkit-print-color-adjust:exact}}"
)
KEYS = (  # what stands above the picture of time: how each line and band looks, and what it is
    ("height:2px;vertical-align:.25rem", "", "median"),
    ("opacity:.42", "", "median to p95"),
    ("opacity:.22", "", "p95 to p99"),
    ("opacity:.1", "", "p99 to slowest"),
    ("height:2px;vertical-align:.25rem;background:var(--ink);opacity:.6", "", "slowest"),
    ("background:none;color:var(--red);height:auto;width:auto;font-style:normal", "x", "without a good answer"),
)
KEY = "".join(f'<i style="{style}">{mark}</i>{what}' for style, mark, what in KEYS)


def page(told: Mapping[str, Any]) -> bytes:
    """The whole page, UTF-8."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    title = f"{_outcome(told)}: load test of {told['url']}"
    body = "".join(part for make in (_verdict, _judged, _time, _curve, _clocks, _answers, _tokens, _fitness, _windows, _foot) for part in make(told))
    style = f"<title>{safe(title)}</title><style>{COLOURS}{STYLE}{PICTURES}</style>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{style}</head><body><main>{body}</main></body></html>\n'.encode()


def _outcome(told: Mapping[str, Any]) -> str:
    return WORDS.get(told["outcome"], str(told["outcome"]).upper())


# The verdict


def _verdict(told: Mapping[str, Any]) -> Iterator[str]:
    first, *more = str(told["reason"]).removeprefix(f"{_outcome(told)}: ").splitlines() or [""]
    yield f'<header><span class="badge {safe(told["outcome"])}">{safe(_outcome(told))}</span><h1>{safe(first)}</h1>'
    yield "".join(f"<p>{safe(line)}</p>" for line in more)
    lines = f"{told['method']} {told['url']}", sent_in_words(told) + _left_out(told["warm"]), f"begun {told['began_at'][:19].replace('T', ' ')} UTC"
    yield f'<p class="dim">{"<br>".join(map(safe, lines))}</p>'
    if told["schedule"]["closed"]:
        yield f'<p class="fail">{CLOSED}</p>'
    if told["aborted"]:
        yield f'<p class="inconclusive">The run ended early: {safe(told["aborted"])}</p>'
    yield f'</header><ul class="tiles">{"".join(_tiles(told))}</ul>'


def _left_out(warm: float) -> str:
    return f"; the first {warm:g} s are warm-up, sent and not judged" if warm else ""


CLOSED = (
    "A closed loop: each user waits for an answer before asking again, so a slow server is asked less, and the wait of those who would have asked "
    "meanwhile is not seen. Its percentiles may be far too low; nothing about an open stream of requests follows from them."
)


def _tiles(told: Mapping[str, Any]) -> Iterator[str]:
    bad = told["requests"] - told["answers"]["good"]
    share = f" ({_share(bad / told['requests'])})" if bad else ""
    rate = told["generator"]["rate"]
    shown = [p for p in told["percentiles"] if p["name"] in ("p50", "p99")]
    yield _tile(f"{rate:,.4g}/s", "sent")
    for point in shown:
        yield _tile(_latency(point["seconds"]), f"{point['name']} latency" + ("" if point["supported"] else ", not supported by this run"))
    yield _tile(f"{bad:,}", f"without a good answer{share}")
    for limit in told["limits"][:1]:
        yield _tile(f"{limit['over']:,}", f"of {limit['n']:,} over {length_in_words(limit['seconds'])}")
        yield _tile(f"{limit['burst']:g} s", "valid for bursts up to this long")


def _tile(value: str, what: str) -> str:
    return f"<li><b>{safe(value)}</b><span>{safe(what)}</span></li>"


def _latency(seconds: float | None) -> str:
    return "no answer" if seconds is None else length_in_words(seconds)


def _judged(told: Mapping[str, Any]) -> Iterator[str]:
    if not told["limits"]:
        return
    heads = ("limit", "", "observed", "interval", "over it", "share, interval", "design effect", "bursts up to", "seconds needed")
    rows = [
        (
            f"{limit['name']} ≤ {length_in_words(limit['seconds'])}",
            WORDS.get(limit["outcome"], limit["outcome"]),
            _latency(limit["observed"]),
            interval(limit["interval"]),
            f"{limit['over']:,} of {limit['n']:,} ({_share(limit['share'])})",
            " to ".join(map(_share, limit["share_interval"])) if limit["share_interval"] else "-",
            f"{limit['design']:.3g}",
            f"{limit['burst']:g} s",
            needed(limit),
        )
        for limit in told["limits"]
    ]
    yield f"<section><h2>Limits</h2>{table(heads, rows, 'What was judged, limit by limit')}"
    yield "</section>"


def interval(ends: Sequence[float | None] | None) -> str:
    """Two lengths; without an upper end there is none, or no good answer at that rank."""
    if ends is None or ends[0] is None:
        return "-"
    return f"{length_in_words(ends[0])} {'or more' if ends[1] is None else f'to {length_in_words(ends[1])}'}"


def needed(limit: Mapping[str, Any]) -> str:
    """Seconds of such a run until it would pass; nothing where it has, or never would."""
    if limit["outcome"] in ("pass", "fail"):
        return "-"
    return f"{limit['missing']:,.0f} more" if limit["missing"] is not None else "unknown"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


# Pictures


def _time(told: Mapping[str, Any]) -> Iterator[str]:
    if told["windows"]:
        yield f"<section><h2>Latency over time</h2><p class='key' aria-hidden='true'>{KEY}</p><figure>{over_time(told)}</figure></section>"


def _curve(told: Mapping[str, Any]) -> Iterator[str]:
    if drawn := by_percentile(told):
        rows = [(p["name"], _latency(p["seconds"]), interval(p["interval"]), "yes" if p["supported"] else "no") for p in told["percentiles"]]
        yield f"<section><h2>Latency by percentile</h2><figure>{drawn}</figure>"
        yield f"{table(('percentile', 'latency', 'interval', 'supported by this run'), rows, 'Percentiles of the latency')}</section>"


# Tables


def _clocks(told: Mapping[str, Any]) -> Iterator[str]:
    clocks = told["clocks"]
    heads = ("where", "median", "p90", "p99", "longest", "what it is")
    rows = [
        (MEANING[name][0], *(length_in_words(clocks[name][key]) for key in ("p50", "p90", "p99", "max")), MEANING[name][1])
        for name in (*PARTS, "latency")
    ]
    yield f"<section><h2>Where the time went</h2><p>{safe(diagnosis(told))}</p>{table(heads, rows, 'The parts of a latency')}</section>"


def diagnosis(told: Mapping[str, Any]) -> str:
    """One sentence about the requests over the limit: which part of the way was the longest of most of them."""
    over = told["over"]
    if over is None:
        return "No limit was given, so no request was too slow."
    if not over["n"]:
        return f"No request took over {length_in_words(over['limit'])}."
    places = {"server": "in the server", "queue": "waiting for a connection", "lag": "in the generator itself"}
    for name, place in places.items():
        if over[name] == over["n"] > 1:
            return f"All {over['n']:,} requests over {length_in_words(over['limit'])} spent most of their time {place}."
    told_of = [f"{over[name]:,} spent most of their time {place}" for name, place in places.items() if over[name]]
    told_of += [f"{over['unanswered']:,} had no good answer"] if over["unanswered"] else []
    return f"Of the {over['n']:,} requests over {length_in_words(over['limit'])}, {', '.join(told_of)}."


def _answers(told: Mapping[str, Any]) -> Iterator[str]:
    if told["answers"]["good"] == told["requests"]:
        return
    rows = [(KIND_WORDS.get(kind, kind), f"{count:,}", _share(count / told["requests"])) for kind, count in told["answers"].items()]
    yield f"<section><h2>Answers</h2>{table(('how it ended', 'requests', 'share'), rows, 'How requests ended')}"
    if told["said"]:
        words = sorted(told["said"].items(), key=lambda item: -item[1])[:20]
        yield table(("times", "what was said"), [(f"{count:,}", said) for said, count in words], "The commonest errors")
    yield "</section>"


def _tokens(told: Mapping[str, Any]) -> Iterator[str]:
    tokens = told["tokens"]
    if tokens:
        names = {"first": "until the first token", "gap": "between tokens", "each": "a token after the first, in the mean of its answer"}
        rows = [(what, *(length_in_words(tokens[name][key]) for key in ("p50", "p90", "p99", "max"))) for name, what in names.items()]
        yield f"<section><h2>Tokens</h2><p>{tokens['tokens']:,} tokens came.</p>"
        yield f"{table(('time', 'median', 'p90', 'p99', 'longest'), rows, 'Times of tokens')}</section>"


def _fitness(told: Mapping[str, Any]) -> Iterator[str]:
    made = told["generator"]
    words = (
        "The generator kept up: what was measured is the server."
        if made["fit"]
        else "The generator was the bottleneck; nothing follows about the server."
    )
    rows = [
        ("lag in taking requests up, p99", length_in_words(made["lag"])),
        ("sent a second", f"{made['rate']:,.4g} of {made['meant']:,.4g}"),
        ("CPU of a generator process", _share(made["cpu"])),
        ("generator processes", f"{made['workers']}" + (f", {made['lost']} lost" if made["lost"] else "")),
    ]
    yield f"<section><h2>Was the generator fit?</h2><p>{words}</p>"
    yield "<ul>" + "".join(f"<li>{safe(why)}</li>" for why in made["unfit"]) + "</ul>" if made["unfit"] else ""
    yield f"{table(('', ''), rows, 'What is known of the generator')}</section>"


def _windows(told: Mapping[str, Any]) -> Iterator[str]:
    if not told["windows"]:
        return
    heads = ("from", "requests", "a second", "no good answer", "median", "p95", "p99", "slowest", "generator lag p99", "in flight at its end")
    rows = [
        (
            f"{w['start']:g} s",
            f"{w['n']:,}",
            f"{w['n'] / w['seconds']:,.4g}",
            f"{w['errors']:,}",
            *(_latency(w[name]) if w["n"] else "-" for name in ("p50", "p95", "p99")),
            *(length_in_words(w[name]) for name in ("max", "lag")),
            f"{w['in_flight']:,}",
        )
        for w in told["windows"]
    ]
    yield f"<section><h2>Windows</h2><details><summary>{len(rows)} windows of {told['windows'][0]['seconds']:g} s</summary>"
    yield f"{table(heads, rows, 'Window by window')}</details></section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose first column names its rows; a last column called 'what ...' holds sentences and wraps."""
    said = len(heads) - 1 if heads[-1].startswith("what ") else -1

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = (f'{tag} class="said"' if n == said else tag for n in range(1, len(row)))
        return "".join(f"<{kind}>{safe(cell)}</{tag[:2]}>" for kind, cell in zip(kinds, row[1:], strict=True))

    top = f'<tr><th scope="col">{safe(heads[0])}</th>{cells(heads, TH)}</tr>'
    body = "".join(f'<tr><th scope="row">{safe(row[0])}</th>{cells(row, "td")}</tr>' for row in rows)
    named = f'aria-label="{safe(caption)}"'
    return f'<div class="scroll" tabindex="0" role="region" {named}><table {named}><thead>{top}</thead><tbody>{body}</tbody></table></div>'


TH = 'th scope="col"'


def _foot(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"<footer><p>{NOTE}</p></footer>"


NOTE = (
    "The whole schedule was drawn before the run and no request was left out. A latency counts from the time the schedule said, not from when the "
    "request could be sent; one without a good answer counts as over every limit. Percentiles are order statistics. An interval allows for bursts: "
    "requests that are slow together count as one."
)
