"""One run: requests laid, sent as they were asked for, the warm-up set apart, and whether the generator itself was fit to judge by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent import Columns, Json, Load, Registry, Server, Verdict, nodata
from agent.errors import CannotError, ConfigError, UnreachableError
from loadtests import _asked, _drive, _expect, _generator, _requests
from loadtests._asked import Asked
from loadtests._spec import KINDS, Trace, Traffic
from loadtests._windows import since

Tell = Callable[[float, str], None]
CONNECT = KINDS.index("connect")
CALLED_OFF = ("cancelled", "interrupted")  # as the traffic program says that whoever asked for it ended it


@dataclass(frozen=True)
class Ran:
    """What came of one run. `trace` is what is judged, `whole` holds the warm-up too."""

    asked: Asked
    traffic: Traffic
    whole: Trace
    trace: Trace
    source: str  # of the requests
    unfit: tuple[str, ...]  # why the generator spoils the verdict
    cancelled: bool  # whoever asked for the run called it off

    @property
    def warmed(self) -> float:
        """Seconds that were set apart, so that what is judged begins then."""
        return 0.0 if self.trace is self.whole else self.asked.warm.total_seconds()

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many of the judged requests ended in each way."""
        import numpy as np

        counts = np.bincount(self.trace.kind, minlength=len(KINDS)).tolist()
        return {name: count for name, count in zip(KINDS, counts, strict=True) if count}


def quiet(done: float, what: str) -> None:
    """Nobody is told."""


def laid(
    server: Server, scratch: Path, registry: Registry | None, live: Columns | None, request: Json, requests: str, rows: int
) -> _requests.Laid | Verdict:
    """The file of requests, or why there is nothing to send: nobody is sent a request who says that it is not ready."""
    if rows < 0:
        raise ConfigError(f"rows: {rows} should be 0 or more")
    try:
        if not server.ready():
            return nodata("the server answers, and says that the model is not ready, so nothing was sent; serving.ready watches that")
    except CannotError:
        pass  # plain HTTP says it only where it was told how
    found = _requests.written(scratch / "requests.jsonl", server, registry, live, request=request, requests=requests, rows=rows)
    return found or nodata(_requests.NOTHING)


def run(asked: Asked, load: Load, of: _requests.Laid, scratch: Path, tell: Tell | None, limit: float, name: str = "run") -> Ran:
    """Send it. UnreachableError when no request at all came to a connection: that says nothing about how fast the server is. ConfigError when not one
    was due."""
    out = scratch / name
    out.mkdir()
    expect = asked.expect or _expect.expected(of.sent)
    traffic = _asked.traffic(replace(asked, expect=expect), load, of.sent, scratch / "requests.jsonl", out)
    whole = _drive.drive(traffic, tell or quiet)
    if not len(whole.kind) and not whole.aborted:
        raise ConfigError(f"duration: not one request was due in {asked.seconds:g} s at {asked.rate:g} a second; make it longer, or `rate` higher")
    if len(whole.kind) and (whole.kind == CONNECT).all():
        raise UnreachableError(f"{traffic.url}: none of {len(whole.kind):,} requests came to a connection{_commonest(whole)}")
    judged = since(whole, asked.warm.total_seconds())
    judged = judged if len(judged.intended) else whole  # it ended within its warm-up: better that than nothing
    return Ran(asked, traffic, whole, judged, of.source, tuple(_generator.unfit(whole, limit)), whole.aborted in CALLED_OFF)


def _commonest(trace: Trace) -> str:
    words = max(trace.said, key=lambda one: trace.said[one], default="")
    return f": {words}" if words else ""
