"""Whether somebody else measures the service too, and who asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite

from agent import Metrics, Reading, Verdict, Window, check, fail, ok, warn

FAMILIES = ("requests", "errors", "latency", "predictions", "nulls", "version")


@check(pillar="monitoring", asks="Are service and model metrics scraped?", severity="ticket", answers=("MON-01",))
def families(
    metrics: Metrics, now: datetime, *, up: str, queries: Mapping[str, str], share: float = 0.99, span: timedelta = timedelta(days=28)
) -> Verdict:
    """Asks the metrics store how much of `span` its scrape of the service, the selector `up`, went well, and whether each family of numbers is there:
    `queries` has one for each of requests, errors, latency, predictions, nulls and version.

    Up for `share` of the time, and all families: ok. Four families of six, or a shorter record, warns. Fewer, down now, or up for less: fails.
    """
    window = Window(now - span, now)
    average = _values(metrics, f"avg_over_time({up}[$window])", window)
    if not average or not _values(metrics, up, window):
        return fail(f"{up} names no scrape: Prometheus does not know of the service, or lost sight of it", Reading(None, share))
    least, now_up = min(average), min(_values(metrics, up, window))
    there = [name for name in FAMILIES if name in queries and _values(metrics, queries[name], window)]
    reading = Reading(least, share, n=len(there), unit="families")
    told = f"{up} was up for {least:.2%} of what is held of {span.days} d; {len(there)} of {len(FAMILIES)} families are there"
    gone = [name for name in FAMILIES if name not in there]
    told += f", not {', '.join(gone)}" if gone else ""
    if not now_up or least < share or len(there) < 0.7 * len(FAMILIES) - 0.5:
        return fail(told if now_up else f"{told}; it is down now", reading)
    whole = _values(metrics, f"{up} offset {int(span.total_seconds() * 0.95)}s", window)
    if not whole:
        told += f"; the store holds less than {span.days} d of it"
    return ok(told, reading) if whole and not gone else warn(told, reading)


def _values(metrics: Metrics, query: str, window: Window) -> list[float]:
    return [one.value for one in metrics.query(query, window).series if isfinite(one.value)]


@check(pillar="monitoring", asks="Is every consumer of the predictions declared?", severity="ticket", answers=("TEAM-07",))
def consumers(
    metrics: Metrics,
    now: datetime,
    *,
    query: str,
    declared: Sequence[str],
    label: str = "client",
    unknown: float = 0.01,
    span: timedelta = timedelta(days=28),
) -> Verdict:
    """Asks how many requests came from each caller in `span`: `query`, such as sum by (client) (increase(requests_total[$window])), gives a series
    for each, named by `label`. Nobody who is not `declared` is ok, at most `unknown` of the traffic warns, more fails; so do callers without a name.
    """
    found = metrics.query(query, Window(now - span, now)).series
    calls: dict[str, float] = {}
    for one in found:
        if isfinite(one.value) and one.value > 0:
            calls[one.labels.get(label, "")] = calls.get(one.labels.get(label, ""), 0.0) + one.value
    total = sum(calls.values())
    if not total:
        return warn(f"no request in {span.days} d, as far as this query tells; nobody is known to ask", Reading(0.0, unknown, n=0))
    strangers = {name: n for name, n in calls.items() if name not in declared}
    share = sum(strangers.values()) / total
    reading = Reading(share, unknown, n=len(calls), unit="callers")
    if strangers.get(""):
        return fail(f"{strangers['']:.0f} of {total:.0f} requests in {span.days} d have no caller's name in '{label}'", reading)
    if not strangers:
        return ok(f"{len(calls)} callers in {span.days} d, all of them declared", reading)
    worst = sorted(strangers, key=lambda name: -strangers[name])[:3]
    told = f"{share:.2%} of the requests in {span.days} d come from {len(strangers)} callers that nobody declared: {', '.join(worst)}"
    return (warn if share <= unknown else fail)(told, reading)
