"""What the traffic program is told (`Traffic`), and what it gives back (`Trace`): the clocks of every request, and what is known of the generator.

A clock is in seconds since the run's start, NaN where a request never came to that. `intended` is when the schedule said, `dispatched` when
the generator took the request up, `sent` when a connection was free and its bytes went out, `done` when the whole answer was there. The latency
that is judged is done - intended, infinite where there was no good answer; dispatched - intended is the generator's own lag, and the rest is the
server's and its queue's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Pattern = Literal["constant", "poisson", "ramp", "spike", "replayed"]
KINDS = ("good", "status", "timeout", "connect", "protocol", "invalid", "unfinished")  # how a request ended; only `good` is an answer in time


@dataclass(frozen=True)
class Arrivals:
    """When requests are meant to be sent. The whole schedule is drawn before the run; the same values give the same times."""

    pattern: Pattern = "poisson"
    rate: float = 1.0  # requests a second; of a ramp, where it ends; of a spike, outside of it
    seconds: float = 1.0
    begin: float = 0.0  # of a ramp: the rate it begins with
    peak: float = 0.0  # of a spike: the rate within it
    peak_at: float = 0.0  # of a spike: when it begins and how long it lasts, in seconds
    peak_for: float = 0.0
    times: str = ""  # replayed: a file of one time a line, in seconds; the first is the start
    seed: int = 0


@dataclass(frozen=True)
class Expect:
    """What makes an answer good, beside coming in time: anything else counts as over the limit."""

    status: tuple[int, ...] = ()  # none: 200 to 299
    json: bool = False  # the body must be JSON
    fields: tuple[str, ...] = ()  # dotted places that must be there
    text: str = ""  # must stand in the body


@dataclass(frozen=True)
class Traffic:
    """One run. `requests` is a JSON lines file of {"body": text} or {"body": text, "path": "/..."}; request i sends line i modulo their number."""

    url: str
    requests: str
    arrivals: Arrivals
    out: str  # a folder: the program leaves its arrays there
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30.0  # seconds, counted from the intended time
    connections: int = 512  # at most so many requests in flight; a further one waits, and its clock runs
    open_first: int = 0  # connections opened before the run; 0: as many as the rate suggests
    expect: Expect = Expect()
    stream: Literal["", "openai"] = ""  # read the answer as server-sent events and stamp its tokens
    closed: int = 0  # users of a closed loop, each sending when its last answer is there; 0: the schedule above
    workers: int = 1  # generator processes, each with its slice of the one schedule: all here, or all of them joining
    join: str = ""  # host:port on which `workers` join, from other machines or this one
    abort_errors: float | None = None  # end the run early when this share of a second's requests is not good
    abort_latency: float | None = None  # ... or their median latency is above this many seconds
    metrics: str = ""  # host:port for Prometheus to scrape while the run goes on
    verify: bool = True
    ca: str | None = None


@dataclass(frozen=True)
class Trace:
    """What came of it: an array element for each request that the schedule held until the run's end, in the order of the schedule."""

    intended: Any
    dispatched: Any
    sent: Any
    done: Any
    kind: Any  # uint8, an index into KINDS
    status: Any  # uint16, HTTP's; 0 where none came
    began_at: datetime
    wall: float  # seconds from the first intended time to the last answer
    cpu: float  # CPU seconds of the generator meanwhile, all workers together
    workers: int = 1
    lost: int = 0  # workers that were lost: their requests are missing here
    aborted: str = ""  # why the run ended early
    closed: int = 0
    said: Mapping[str, int] = field(default_factory=dict)  # the commonest words of errors, with their counts
    first: Any = None  # streams: seconds from intended to the first token
    tokens: Any = None  # streams: in how many pieces tokens came
    gaps: Any = None  # streams: all gaps between those pieces, in seconds, request after request (tokens - 1 of each)
    usage: Any = None  # streams: how many tokens the server says that it made; 0 where it did not say
    notes: tuple[str, ...] = ()  # what else there is to say of how it was run, a sentence each: how far the workers' clocks were apart

    @property
    def good(self) -> Any:
        """Which requests were answered, well and in time."""
        return self.kind == 0

    @property
    def latency(self) -> Any:
        """Seconds from the intended time to the whole answer; infinite where no good one came."""
        import numpy as np

        return np.where(self.good, self.done - self.intended, np.inf)
