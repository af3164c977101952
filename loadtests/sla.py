"""Whether a service keeps its promises under load: latency, capacity, against a pinned run, over hours, and from a cold start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import Columns, Load, Registry, Server, Verdict, check
from loadtests import _asked, _run, _told, _windows
from loadtests._asked import Asked
from loadtests._run import Ran
from loadtests._spec import Expect, Pattern

Tell = Callable[[float, str], None]
WINDOW = 10.0  # seconds


@check(pillar="deployment", asks="Does the service answer in time at this rate?", cause="latency")
def latency(
    server: Server,
    load: Load,
    scratch: Path,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    rate: float,
    duration: timedelta,
    limits: dict[str, timedelta],
    burst: timedelta = timedelta(seconds=1),
    confidence: float = 0.95,
    warm: timedelta = timedelta(seconds=5),
    arrivals: Pattern = "poisson",
    begin: float = 0.0,
    peak: float = 0.0,
    peak_at: timedelta = timedelta(),
    peak_for: timedelta = timedelta(),
    times: str = "",
    users: int = 0,
    request: dict[str, Any] | list[Any] | None = None,
    requests: str = "",
    rows: int = 1000,
    expect: Expect | None = None,
    timeout: timedelta = timedelta(seconds=30),
    connections: int = 512,
    workers: int = 1,
    seed: int = 0,
) -> Verdict:
    """Sends `rate` requests a second for `duration`, whether answers come or not, and judges each of `limits`, such as {p99: 100ms}.

    PASS is ok and says that with `confidence` every quantile is within its limit; FAIL that one is not; INCONCLUSIVE (nodata) that the run cannot
    tell; INVALID (error) that the generator was too slow itself. A latency runs from when the request was due to its whole answer; what was not
    answered well is over every limit. The verdict allows for stalls up to `burst`. Source: loadtests/_verdict.py.
    """
    asked = Asked(
        rate, duration, warm, arrivals, begin, peak, peak_at, peak_for, times, timeout, connections, workers, seed, expect, users
    )
    _asked.prove(asked, load, *_asked.burst_and_confidence(burst, confidence))
    claims = _asked.claims(limits, timeout)
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    ran = _run.run(asked, load, laid, scratch, tell, min(claim.limit for claim in claims))
    found = _told.answered(ran, claims, burst, confidence)
    return _told.verdict(ran, found, _files(ran, claims[-1].limit))


def _files(ran: Ran, limit: float) -> Mapping[str, bytes]:
    return {"windows.csv": _windows.to_csv(_windows.windows(ran.trace, WINDOW, limit))}
