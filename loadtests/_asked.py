"""What a load test is asked to send, proven whole before the first request: ranges, limits of latency, and what the service's `load:` allows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from agent import Load, Sent, spell
from agent.errors import ConfigError
from loadtests._schedule import times
from loadtests._spec import Arrivals, Claim, Expect, Pattern, Traffic

MOST_WINDOWS = 100  # a side of a comparison
PATTERNS = ("constant", "poisson", "ramp", "spike", "replayed")
LIMITS = "write them as `limits: {p50: 20ms, p99: 100ms}`"


@dataclass(frozen=True, slots=True)
class Asked:
    """One run, as its check was configured. The first `warm` of it are sent and not judged."""

    rate: float
    duration: timedelta
    warm: timedelta = timedelta(seconds=5)
    arrivals: Pattern = "poisson"
    begin: float = 0.0
    peak: float = 0.0
    peak_at: timedelta = timedelta()
    peak_for: timedelta = timedelta()
    times: str = ""
    timeout: timedelta = timedelta(seconds=30)
    connections: int = 512
    workers: int = 1
    seed: int = 0
    expect: Expect | None = None
    users: int = 0  # of a closed loop; 0: open
    join: str = ""  # host:port on which the workers, of other machines then, join
    expose: str = ""  # host:port on which Prometheus may scrape the run
    stream: Literal["", "openai"] = ""  # answers are read as such a stream
    claims: tuple[Claim, ...] = ()  # what is judged of it, for stalls up to `burst`, wrong with at most 1 - `confidence`
    burst: timedelta = timedelta(seconds=1)
    confidence: float = 0.95
    early: bool = False  # the run ends when one of the claims surely fails

    @property
    def seconds(self) -> float:
        """How long requests are sent."""
        return (self.warm + self.duration).total_seconds()

    @property
    def highest(self) -> float:
        """The most requests a second that are meant to be sent."""
        return max(self.rate, self.begin if self.arrivals == "ramp" else 0.0, self.peak if self.arrivals == "spike" else 0.0)


def claims(limits: Mapping[str, timedelta], timeout: timedelta) -> tuple[Claim, ...]:
    """{"p99": 100 ms} as claims, the lowest quantile first; ConfigError names every one that is none."""
    found, wrong = [], []
    for name, limit in limits.items():
        share = float(name[1:]) / 100 if re.fullmatch(r"p\d\d?(\.\d+)?", name) else math.nan
        if not 0 < share < 1:
            wrong.append(f"limits.{name}: no percentile; {LIMITS}")
        elif not timedelta() < limit <= timeout:
            wrong.append(f"limits.{name}: {spell(limit)} should be above 0 and at most the timeout of {spell(timeout)}: nothing is waited for longer")
        else:
            found.append(Claim(name, share, limit.total_seconds()))
    if wrong or not found:
        raise ConfigError(wrong or f"limits: none is given, so nothing could ever be wrong; {LIMITS}")
    return tuple(sorted(found, key=lambda one: one.quantile))


def prove(asked: Asked, load: Load, *more: str) -> None:
    """ConfigError with all that is wrong: values out of range, what the service's `load:` does not allow, and what else was found (`more`)."""
    wrong = [*(one for one in more if one), *_ranges(asked), *_ceilings(asked, load)]
    if wrong:
        raise ConfigError(wrong)


def _ranges(asked: Asked) -> Iterator[str]:
    if asked.burst <= timedelta():
        yield f"burst: {spell(asked.burst)} should be above 0: it is how long a stall may last without fooling the verdict"
    if not 0.5 <= asked.confidence < 1:
        yield f"confidence: {asked.confidence:g} should be 0.5 or more and below 1"
    if not 0 < asked.rate < math.inf:
        yield f"rate: {asked.rate:g} requests a second; write a number above 0"
    for name in ("duration", "timeout"):
        if getattr(asked, name) <= timedelta():
            yield f"{name}: {spell(getattr(asked, name))} should be above 0"
    if asked.warm < timedelta():
        yield f"warm: {spell(asked.warm)} should be 0s or more"
    for name, least in (("connections", 1), ("workers", 1), ("seed", 0), ("users", 0)):
        if getattr(asked, name) < least:
            yield f"{name}: {getattr(asked, name)} should be {least} or more"
    if asked.arrivals not in PATTERNS:
        yield f"arrivals: '{asked.arrivals}' is none of {', '.join(PATTERNS)}"
    yield from _shape(asked)


def _shape(asked: Asked) -> Iterator[str]:
    """What a ramp, a spike and a replay need beside a rate."""
    if asked.arrivals == "ramp" and not 0 <= asked.begin < math.inf:
        yield f"begin: {asked.begin:g} requests a second; a ramp begins with 0 or more"
    ends = asked.peak_at + asked.peak_for
    if asked.arrivals == "spike" and not (asked.peak > 0 and timedelta() <= asked.peak_at < ends <= asked.warm + asked.duration):
        yield f"a spike needs `peak` above 0, and `peak_at` and `peak_for` within the run of {spell(asked.warm + asked.duration)}"
    if asked.arrivals == "replayed":
        yield from _replay(asked)


def _replay(asked: Asked) -> Iterator[str]:
    """What a file of times holds must be what is said of it, for that is what the service allows or does not."""
    import numpy as np

    if not Path(asked.times).is_file():
        yield f"times: there is no file '{asked.times}'; a replay needs one with a time in seconds a line"
        return
    due = times(Arrivals("replayed", times=asked.times))
    busiest, last = int(np.bincount(due.astype(int)).max()), timedelta(seconds=math.ceil(float(due[-1])))
    if busiest > asked.rate:
        yield f"rate: the busiest second of {asked.times} has {busiest} requests; write `rate: {busiest}` if that is meant"
    if last > asked.warm + asked.duration:
        yield f"duration: {asked.times} goes on for {spell(last)}; write `duration: {spell(last - asked.warm)}` if that is meant"


def _ceilings(asked: Asked, load: Load) -> Iterator[str]:
    length = timedelta(seconds=asked.seconds)
    if asked.highest > load.rate:
        yield f"rate: {asked.highest:g} requests a second are more than the {load.rate:g} that the service's `load: {{rate: ...}}` allows"
    if length > load.longest:
        yield f"duration: {spell(length)} with its warm-up is more than the {spell(load.longest)} that the service's `load: {{longest: ...}}` allows"


def traffic(asked: Asked, load: Load, sent: Sent, requests: Path, out: Path) -> Traffic:
    """The run as the traffic program is told it. `load` says when it is given up."""
    arrivals = Arrivals(
        asked.arrivals,
        asked.rate,
        asked.seconds,
        asked.begin,
        asked.peak,
        asked.peak_at.total_seconds(),
        asked.peak_for.total_seconds(),
        asked.times,
        asked.seed,
    )
    return Traffic(
        sent.url,
        str(requests),
        arrivals,
        str(out),
        method=sent.method,
        headers=dict(sent.headers),
        timeout=asked.timeout.total_seconds(),
        connections=asked.connections,
        expect=asked.expect or Expect(),
        stream=asked.stream,
        closed=asked.users,
        workers=asked.workers,
        join=asked.join,
        metrics=asked.expose,
        claims=asked.claims if asked.early else (),
        burst=asked.burst.total_seconds(),
        confidence=asked.confidence,
        warm=asked.warm.total_seconds(),
        abort_errors=load.errors,
        abort_latency=load.latency.total_seconds() if load.latency else None,
        verify=sent.verify,
        ca=sent.ca,
    )


# What the other checks are given beside


def quest(
    rate: float, highest: float, allowed: float, each: float, duration: timedelta, width: float, drain: timedelta, at_least: float | None
) -> Iterator[str]:
    """What is wrong with how `sla.capacity` is to search."""
    if at_least is not None and not 0 < at_least <= highest:
        yield f"at_least: {at_least:g} requests a second should be above 0 and at most the highest rate that is tried, {highest:g}"
    if not rate <= highest <= allowed or highest == math.inf:
        yield f"ceiling: {highest:g} requests a second should be between `rate` ({rate:g}) and what `load: {{rate: ...}}` allows ({allowed:g})"
    if not 0 < each <= duration.total_seconds():
        took = spell(timedelta(seconds=each))
        yield f"step: runs of {took} (as long as a PASS takes, where no `step` is given) do not fit into the `duration` of {spell(duration)}"
    if not 1 < width < math.inf:
        yield f"width: {width:g} should be above 1, such as 1.1 for a bracket 10 % wide"
    if drain < timedelta():
        yield f"drain: {spell(drain)} should be 0s or more"


def comparison(duration: timedelta, cut: timedelta, at_least: int, shares: tuple[float, float], seconds: timedelta) -> Iterator[str]:
    """What is wrong with how `sla.regression` is to compare."""
    if cut <= timedelta():
        yield f"cut: {spell(cut)} should be above 0"
    elif duration < at_least * cut:
        yield f"duration: {spell(duration)} holds fewer than {at_least} windows of {spell(cut)}; make it {spell(at_least * cut)}, or `cut` shorter"
    elif duration > MOST_WINDOWS * cut:
        yield f"cut: {spell(duration)} holds more than {MOST_WINDOWS} windows of {spell(cut)}; make them {spell(duration / MOST_WINDOWS)} or longer"
    if at_least < 5:
        yield f"windows_at_least: {at_least} should be 5 or more: fewer cannot differ surely; 20 is what is usual"
    for name, value in zip(("floor", "floor_errors"), shares, strict=True):
        if not 0 <= value < math.inf:
            yield f"{name}: {value:g} should be a share of 0 or more"
    if seconds < timedelta():
        yield f"floor_seconds: {spell(seconds)} should be 0s or more"


def endurance(
    limit: timedelta, errors: float, horizon: timedelta, limit_memory: float | None, memory: str, pid: int | None, metrics: bool
) -> Iterator[str]:
    """What is wrong with how `sla.soak` is to judge."""
    for name, value in (("limit", limit), ("horizon", horizon)):
        if value <= timedelta():
            yield f"{name}: {spell(value)} should be above 0"
    if not 0 < errors <= 1:
        yield f"limit_errors: {errors:g} should be a share above 0 and at most 1"
    if limit_memory is not None and not 0 < limit_memory < math.inf:
        yield f"limit_memory: {limit_memory:g} should be bytes above 0"
    if memory and pid is not None:
        yield "memory and pid: the server's memory is seen in one way; leave one out"
    if memory and not metrics:
        yield "memory: a query needs a `metrics` target; add one, or give `pid` for a process of this machine"
    if pid is not None and not Path(f"/proc/{pid}").exists():
        yield f"pid: there is no process {pid} on this machine"


def prove_starts(
    limit: timedelta, starts: int, share: float, confidence: float, idle: timedelta, give_up: timedelta, command: Sequence[str] | None
) -> None:
    """ConfigError with all that is wrong with how `sla.coldstart` is to start."""
    wrong = []
    if limit <= timedelta() or give_up < limit:
        wrong.append(f"limit: {spell(limit)} should be above 0 and at most `give_up`, which is {spell(give_up)}")
    if idle < timedelta():
        wrong.append(f"idle: {spell(idle)} should be 0s or more")
    if starts < 1:
        wrong.append(f"starts: {starts} should be 1 or more")
    if not 0 < share < 1:
        wrong.append(f"share: {share:g} should be between 0 and 1")
    if not 0.5 <= confidence < 1:
        wrong.append(f"confidence: {confidence:g} should be 0.5 or more and below 1")
    if command is not None and not (command and command[0]):
        wrong.append("command: is empty; write a program and its arguments as a list, or leave it out")
    if command and idle:
        wrong.append("idle: a command starts a new process each time, so there is nothing to be silent for; leave one out")
    if wrong:
        raise ConfigError(wrong)
