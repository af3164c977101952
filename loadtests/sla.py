"""Whether a service keeps its promises under load: latency, capacity, against a pinned run, over hours, and from a cold start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from agent import Baseline, Columns, Load, Metrics, Registry, Server, Verdict, check, nodata
from loadtests import _asked, _capacity_told, _coldstart, _coldstart_told, _regression_told, _requests, _run, _soak_told, _told, _verdict
from loadtests._asked import Asked
from loadtests._capacity import Plan
from loadtests._capacity_told import Search
from loadtests._regression import Floors
from loadtests._soak import Resident
from loadtests._soak_told import Ends
from loadtests._spec import Expect, Pattern

Tell = Callable[[float, str], None]


@check(pillar="deployment", asks="Does the service answer in time at this rate?", cause="latency", answers=("DEPL-06",))
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
    join: str = "",
    expose: str = "",
    early: bool = True,
    report: bool = False,
) -> Verdict:
    """Sends `rate` requests a second for `duration`, whether answers come or not, and judges each of `limits`, such as {p99: 100ms}.

    PASS is ok and says that with `confidence` every quantile is within its limit; FAIL that one is not; INCONCLUSIVE (nodata) that the run cannot
    tell; INVALID (error) that the generator was too slow itself. A latency runs from when the request was due to its whole answer; what was not
    answered well is over every limit. The verdict allows for stalls up to `burst`. A run that surely fails ends then, unless `early` is false.
    At `join` (host:port) workers of other machines join; at `expose` Prometheus may scrape the run; `report` leaves a page and other tools' files
    beside the verdict. Source: loadtests/_verdict.py.
    """
    shape = (arrivals, begin, peak, peak_at, peak_for, times)
    how = Asked(rate, duration, warm, *shape, timeout, connections, workers, seed, expect, users, join, expose)
    asked = replace(how, burst=burst, confidence=confidence, early=early)
    _asked.prove(asked, load)
    claims = _asked.claims(limits, timeout)
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    ran = _run.run(replace(asked, claims=claims), load, laid, scratch, tell, min(claim.limit for claim in claims))
    return _told.verdict(ran, _told.answered(ran), report)


@check(pillar="deployment", asks="How many requests a second does the service bear within its limits?", cause="latency", severity="ticket")
def capacity(
    server: Server,
    load: Load,
    scratch: Path,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    rate: float,
    limits: dict[str, timedelta],
    at_least: float | None = None,
    ceiling: float | None = None,
    duration: timedelta = timedelta(hours=2),
    step: timedelta | None = None,
    width: float = 1.1,
    drain: timedelta = timedelta(seconds=2),
    burst: timedelta = timedelta(seconds=1),
    confidence: float = 0.95,
    warm: timedelta = timedelta(seconds=5),
    arrivals: Literal["poisson", "constant"] = "poisson",
    request: dict[str, Any] | list[Any] | None = None,
    requests: str = "",
    rows: int = 1000,
    expect: Expect | None = None,
    timeout: timedelta = timedelta(seconds=30),
    connections: int = 512,
    workers: int = 1,
    seed: int = 0,
) -> Verdict:
    """Searches the highest rate at which `limits` hold: from `rate` on doubled up to `ceiling` (default: what `load:` allows), then bisected until
    the last PASS and the first FAIL are at most `width` apart as a ratio, and confirmed by a longer run a little beneath.

    Each run is judged as by `sla.latency`, and lasts `step`: as long as a PASS takes, if it is not given, and up to four times that where it is
    INCONCLUSIVE. With `at_least` it fails when that rate is not borne, is ok when it is; without, it is ok when a capacity was found. All runs
    together take at most `duration`. Poisson arrivals queue, so the capacity lies below servers over service time. Source: loadtests/_capacity.py.
    """
    how = Asked(rate, duration, warm, arrivals, timeout=timeout, connections=connections, workers=workers, seed=seed, expect=expect)
    asked = replace(how, burst=burst, confidence=confidence, early=True)
    _asked.prove(asked, load)
    claims, highest = _asked.claims(limits, timeout), load.rate if ceiling is None else ceiling
    each = step.total_seconds() if step is not None else _verdict.needed_seconds(claims[-1].quantile, burst.total_seconds(), confidence)
    _asked.prove(asked, load, *_asked.quest(rate, highest, load.rate, each, duration, width, drain, at_least))
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    plan = Plan(rate, highest, rate / 1000, each, 4 * each, width)
    search = Search(replace(asked, claims=claims), plan, drain.total_seconds(), duration)
    return _capacity_told.searched(search, load, laid, scratch, tell or _run.quiet, at_least)


@check(pillar="deployment", asks="Is the service slower, or does it fail more, than in the run that was pinned?", cause="latency", severity="ticket")
def regression(
    server: Server,
    load: Load,
    scratch: Path,
    baseline: Baseline | None = None,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    rate: float,
    duration: timedelta = timedelta(minutes=5),
    cut: timedelta = timedelta(seconds=10),
    windows_at_least: int = 20,
    floor: float = 0.1,
    floor_seconds: timedelta = timedelta(milliseconds=5),
    floor_errors: float = 0.005,
    warm: timedelta = timedelta(seconds=5),
    arrivals: Literal["poisson", "constant"] = "poisson",
    request: dict[str, Any] | list[Any] | None = None,
    requests: str = "",
    rows: int = 1000,
    expect: Expect | None = None,
    timeout: timedelta = timedelta(seconds=30),
    connections: int = 512,
    workers: int = 1,
    seed: int = 0,
) -> Verdict:
    """Compares p50, p95, p99 and the share of errors of windows of `cut` with those of the pinned run.

    FAIL: one is surely higher (exact permutation test of windows, p at most 0.01 after Holm) and by more than matters, which is for latencies the
    larger of `floor` (a share) and `floor_seconds`, for errors `floor_errors`. PASS (ok): not even the upper end of any 98 % interval is. Else
    INCONCLUSIVE (nodata). Each run leaves yardstick.csv, which is what a later run is compared with once its finding is pinned.
    Source: loadtests/_regression.py.
    """
    asked = Asked(rate, duration, warm, arrivals, timeout=timeout, connections=connections, workers=workers, seed=seed, expect=expect)
    _asked.prove(asked, load, *_asked.comparison(duration, cut, windows_at_least, (floor, floor_errors), floor_seconds))
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    ran = _run.run(asked, load, laid, scratch, tell, 10 * floor_seconds.total_seconds())
    floors = Floors(floor, floor_seconds.total_seconds(), floor_errors)
    return _regression_told.verdict(ran, baseline, cut.total_seconds(), floors, windows_at_least)


@check(pillar="deployment", asks="Does the service stay as it is, hour after hour?", cause="latency", severity="ticket")
def soak(
    server: Server,
    load: Load,
    scratch: Path,
    metrics: Metrics | None = None,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    rate: float,
    duration: timedelta,
    limit: timedelta,
    limit_errors: float = 0.01,
    horizon: timedelta = timedelta(days=1),
    memory: str = "",
    limit_memory: float | None = None,
    pid: int | None = None,
    warm: timedelta = timedelta(seconds=5),
    arrivals: Literal["poisson", "constant"] = "poisson",
    request: dict[str, Any] | list[Any] | None = None,
    requests: str = "",
    rows: int = 1000,
    expect: Expect | None = None,
    timeout: timedelta = timedelta(seconds=30),
    connections: int = 512,
    workers: int = 1,
    seed: int = 0,
) -> Verdict:
    """Cuts a long run into a hundred windows and takes the slope of their p99 and p50, their errors, and the server's memory.

    FAIL: a slope is surely upwards (the whole 95 % interval) and would reach its limit within `horizon`, or the limit is passed at the end. PASS
    (ok): not even the upper end would. Else INCONCLUSIVE (nodata). Limits are `limit` for both latencies, `limit_errors` for the share of errors,
    `limit_memory` bytes (without it twice what the run began with). Memory is the query `memory` of the metrics target, or that of process `pid`
    of this machine with all it started. Source: loadtests/_soak.py.
    """
    asked = Asked(rate, duration, warm, arrivals, timeout=timeout, connections=connections, workers=workers, seed=seed, expect=expect)
    _asked.prove(asked, load, *_asked.endurance(limit, limit_errors, horizon, limit_memory, memory, pid, metrics is not None))
    laid = _run.laid(server, scratch, registry, live, request, requests, rows)
    if isinstance(laid, Verdict):
        return laid
    resident = Resident(pid, monotonic) if pid is not None else None
    ran = _run.run(asked, load, laid, scratch, resident.told(tell or _run.quiet) if resident else tell, limit.total_seconds())
    ends = Ends(limit.total_seconds(), limit_errors, limit_memory, horizon)
    return _soak_told.verdict(ran, ends, *_soak_told.memory(ran, resident, metrics, memory))


@check(pillar="deployment", asks="How soon after nothing does the service answer well?", cause="latency", severity="ticket")
def coldstart(
    server: Server,
    registry: Registry | None = None,
    live: Columns | None = None,
    tell: Tell | None = None,
    *,
    limit: timedelta,
    command: list[str] | None = None,
    idle: timedelta = timedelta(),
    starts: int = 5,
    share: float = 0.5,
    confidence: float = 0.95,
    give_up: timedelta = timedelta(minutes=5),
    request: dict[str, Any] | list[Any] | None = None,
) -> Verdict:
    """Starts from nothing `starts` times, and judges how many of the first good answers came within `limit`.

    With `command`, a program and its arguments, each start is a fresh process of this machine, timed until it answers well at the address of
    `server`, and stopped again. Without it the server stays as it is: each start is a new connection after `idle` without a request, which is what
    a service that scales to nothing lets its first user wait, and says nothing about loading a model. PASS (ok): with `confidence`, at least
    `share` of starts are in time; FAIL: fewer are; else INCONCLUSIVE (nodata).
    """
    _asked.prove_starts(limit, starts, share, confidence, idle, give_up, command)
    asked = _coldstart_told.request(server, registry, live, request, bool(command))
    if asked is None:
        return nodata(_requests.NOTHING)
    once = (
        partial(_coldstart.begun, server, asked, command, give_up.total_seconds())
        if command
        else partial(_coldstart.reconnected, server, asked, idle.total_seconds())
    )
    found, cancelled = _coldstart.starts(once, starts, tell or _run.quiet)
    return _coldstart_told.verdict(found, cancelled, limit, share, confidence, bool(command))
