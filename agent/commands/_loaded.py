"""What a load test came to, as text for people: the verdict, each limit, percentiles, where the time went, files, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from agent.model import Json
from agent.show import plain, printed, rows, word

WORDS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "invalid": "INVALID", "aborted": "ABORTED"}
STATUSES = {"pass": "ok", "fail": "fail", "inconclusive": "warn", "invalid": "error", "aborted": "warn"}  # in whose colours they stand
SPARE = 1.05  # how much longer than is missing: the next run will not be just like this one
CLOCKS = {"lag": "generator lag", "queue": "wait for a connection", "server": "server", "latency": "latency"}


def loaded(told: Mapping[str, Json]) -> str:
    """The closing words of a run."""
    first, *more = str(told["reason"]).splitlines() or [""]
    said = next((name for name, shouted in WORDS.items() if first.startswith(f"{shouted}: ")), told["status"])
    outcome = str(told.get("outcome") or said)
    head = first.removeprefix(f"{WORDS.get(outcome, '')}: ")
    things: list[Any] = [Text.assemble(_outcome(outcome), f"  {plain(head)}"), *(f"  {plain(line)}" for line in more)]
    things += ["", *_limits(told["limits"])] if told.get("limits") else []
    things += ["", _percentiles(told), "", _clocks(told["clocks"])] if told.get("percentiles") else []
    things += ["", *(f"wrote {plain(file)}" for file in told["files"]), *(f"next: {hint}" for hint in hints(told))]
    return printed(*things)


def _outcome(outcome: str) -> Text:
    return Text(WORDS.get(outcome, outcome), style=word(STATUSES.get(outcome, outcome)).style)


def _limits(limits: Sequence[Mapping[str, Json]]) -> Iterator[Any]:
    heads = ("limit", "", "observed", "interval", "over it", "one counts", "bursts up to", "still needed")
    body = [
        [
            f"{one['name']} ≤ {length(one['seconds'])}",
            _outcome(one["outcome"]),
            length(one["observed"]),
            _interval(one["interval"]),
            f"{one['over']:,} of {one['n']:,}",
            f"of {one['design']:.3g}",
            f"{one['burst']:g} s",
            "-" if one["outcome"] != "inconclusive" else "unknown" if one["missing"] is None else f"{one['missing']:,.0f} s",
        ]
        for one in limits
    ]
    yield rows(heads, body)


def _percentiles(told: Mapping[str, Json]) -> Any:
    body = [
        [p["name"], length(p["seconds"]), _interval(p["interval"]), "" if p["supported"] else "not supported by this run"]
        for p in told["percentiles"]
    ]
    return rows(("percentile", "latency", "interval", ""), body)


def _clocks(clocks: Mapping[str, Mapping[str, Json]]) -> Any:
    body = [[name, *(length(clocks[key][at]) for at in ("p50", "p90", "p99", "max"))] for key, name in CLOCKS.items()]
    return rows(("where the time went", "median", "p90", "p99", "longest"), body)


def _interval(ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return "-"
    return f"{length(ends[0])} {'or more' if ends[1] is None else f'to {length(ends[1])}'}"


def length(seconds: float | None) -> str:
    """Three digits and a unit; None is the latency of what was not answered well."""
    if not seconds:
        return "no answer" if seconds is None else "0"
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size * 0.9995), ("µs", 1e-6))
    return f"{seconds / size:,.0f} {unit}" if seconds / size >= 99.95 else f"{seconds / size:.3g} {unit}"


def hints(told: Mapping[str, Json]) -> Iterator[str]:
    """What to do about it, where that is known."""
    if told["saved"]:
        yield f"watchkeeper load compare ... --against {told['saved']} compares a later run with this one"
    if not told.get("limits"):
        return
    outcome, over = told["outcome"], told["over"] or {}
    if outcome == "invalid" and told["generator"]["unfit"]:
        yield "give the generator more: --workers 2 here, or other machines with --join-at, or a lower --rate"
    if outcome == "inconclusive" and (longer := _longer(told)):
        yield f"run it longer: --for {longer}s"
    if outcome == "fail" and over.get("queue", 0) > max(over["server"], over["unanswered"]):
        many = told["schedule"]["connections"]
        yield f"most late requests waited for one of {many} connections: --connections says how many there are; do your clients have as few?"
    if outcome == "fail" and not told["schedule"]["closed"]:
        yield "watchkeeper load capacity ... finds the rate that it bears"
    if not told["files"]:
        yield "--html FILE draws it"


def _longer(told: Mapping[str, Json]) -> int | None:
    missing = [one["missing"] for one in told["limits"] if one["outcome"] == "inconclusive"]
    if not missing or None in missing:
        return None
    return 10 * math.ceil(float(told["schedule"]["seconds"] - told["warm"] + max(missing)) * SPARE / 10)
