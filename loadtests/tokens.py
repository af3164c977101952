"""Whether a language model's streams of tokens begin, flow and end in time under load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import Columns, Load, Reading, Registry, Server, Status, Verdict, check, error, spell
from loadtests import _asked, _run, _streamed, _told
from loadtests._asked import Asked
from loadtests._requests import Laid
from loadtests._run import Ran
from loadtests._spec import Pattern
from loadtests._streamed import Measure
from loadtests._summary import Limit
from loadtests._verdict import Judged, percentile

Tell = Callable[[float, str], None]


@check(pillar="deployment", asks="What share of streamed answers begins, flows and ends in time at this rate?", cause="latency")
def goodput(
    server: Server,
    load: Load,
    scratch: Path,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    rate: float,
    duration: timedelta,
    limits: dict[Measure, timedelta],
    share: float = 0.95,
    burst: timedelta = timedelta(seconds=1),
    confidence: float = 0.95,
    warm: timedelta = timedelta(seconds=5),
    arrivals: Pattern = "poisson",
    begin: float = 0.0,
    peak: float = 0.0,
    peak_at: timedelta = timedelta(),
    peak_for: timedelta = timedelta(),
    times: str = "",
    request: dict[str, Any] | None = None,
    requests: str = "",
    rows: int = 1000,
    timeout: timedelta = timedelta(minutes=2),
    connections: int = 512,
    workers: int = 1,
    seed: int = 0,
    report: bool = False,
) -> Verdict:
    """Sends `rate` requests a second to an OpenAI-compatible server and judges whether `share` of the streams meets all of `limits` at once.

    `limits` are by measure, such as {ttft: 200ms, tpot: 50ms}: `ttft` until the first token, `itl` the longest gap of an answer, `tpot` the time of a
    token after the first, `e2e` until the whole answer was there. A stream that breaks off, holds an error or no token meets none. PASS, FAIL,
    INCONCLUSIVE and INVALID are those of `sla.latency`. Source: loadtests/_streamed.py.
    """
    shape = (arrivals, begin, peak, peak_at, peak_for, times)
    asked = Asked(rate, duration, warm, *shape, timeout, connections, workers, seed, stream="openai", burst=burst, confidence=confidence)
    _asked.prove(asked, load, *_mistakes(limits, share, timeout))
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    if not streams(laid):
        return error('the first request does not ask for a stream: leave `"stream": false` out of it, or give plain HTTP requests `"stream": true`')
    seconds = {name: limit.total_seconds() for name, limit in limits.items()}
    ran = _run.run(asked, load, laid, scratch, tell, min(seconds.values()))
    return judged(ran, seconds, share, report)


def _mistakes(limits: Mapping[Measure, timedelta], share: float, timeout: timedelta) -> Iterator[str]:
    wanted = "write them as `limits: {ttft: 200ms, tpot: 50ms}`"
    if not limits:
        yield f"limits: none is given, so nothing could ever be wrong; {wanted}"
    for name, limit in limits.items():
        if name not in _streamed.MEASURES:
            yield f"limits.{name}: none of {', '.join(_streamed.MEASURES)}; {wanted}"
        elif not timedelta() < limit <= timeout:
            yield f"limits.{name}: {spell(limit)} should be above 0 and at most the timeout of {spell(timeout)}: nothing is waited for longer"
    if not 0 < share < 1:
        yield f"share: {share:g} should lie between 0 and 1, such as 0.95"


def streams(laid: Laid) -> bool:
    """Whether the first request asks for a stream; the others are made like it."""
    body = json.loads(laid.sent.body or b"null")
    return isinstance(body, dict) and body.get("stream") is True


def judged(ran: Ran, limits: Mapping[Measure, float], share: float, report: bool = False) -> Verdict:
    """The Verdict of one run of streams: goodput decides, each measure stands beside it."""
    how: dict[str, float] = {"share": share, "burst": ran.asked.burst.total_seconds(), "confidence": ran.asked.confidence}
    joint, each = _streamed.goodput(ran.trace, limits, **how), _streamed.apart(ran.trace, limits, **how)
    whole = Limit("goodput", share, 1.0, joint)
    came = _told.outcome(ran, [whole])
    lines = [_told.headline(ran, whole, came, _said(ran, joint, limits, share)), joint.why.replace("took over 1 s", "missed a limit")]
    lines += [*(_line(name, of, limits, share) for name, of in each.items()), *filter(None, [_streamed.counts(ran.trace)]), _told.sent(ran)]
    told = Verdict(
        Status.SKIP if ran.cancelled else _told.STATUS[came], "\n".join(lines), _reading(joint, share), parts=_parts(ran, joint, each, limits, share)
    )
    ends = [Limit(f"{percentile(share)} e2e", share, limits["e2e"], each["e2e"])] if "e2e" in limits else []
    return _told.kept(told, ran, ends, report=report)


def _said(ran: Ran, joint: Judged, limits: Mapping[Measure, float], share: float) -> str:
    (low, high), speed = joint.share_interval, _streamed.per_second(ran.trace)
    wanted = ", ".join(f"{name} {_told.length(limit)}" for name, limit in limits.items())
    between = f"interval {_percent(1 - high)} to {_percent(1 - low)}, at least {_percent(share)} promised"
    spoken = f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
    return f"{_percent(1 - joint.share)} of the streams met {wanted} ({between}) {_told.rate(ran)}, {spoken} tokens a second"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _line(name: Measure, of: Judged, limits: Mapping[Measure, float], share: float) -> str:
    if not of.n:
        return f"{name}: no answer had more than one token"
    if name in limits:
        return f"{name}: {_told.in_words(Limit(percentile(share), share, limits[name], of))}; {_percent(of.share)} missed it"
    return f"{name}: {percentile(share)} is {_told.length(of.observed)}, no limit"


def _reading(joint: Judged, share: float) -> Reading:
    low, high = joint.share_interval
    return Reading(1 - joint.share, share, (1 - high, 1 - low), joint.n, "share")


def _parts(ran: Ran, joint: Judged, each: Mapping[Measure, Judged], limits: Mapping[Measure, float], share: float) -> Mapping[str, Reading]:
    found = {str(name): Reading(_told.finite(of.observed), limits.get(name), _told.ends(of.interval), of.n, "s") for name, of in each.items() if of.n}
    tokens = Reading(_streamed.per_second(ran.trace), n=int(_streamed.measured(ran.trace).n.sum()), unit="tokens/s")
    return {"goodput": _reading(joint, share), **found, "tokens": tokens, "errors": _told.errors(ran)}
