"""The words of Watchkeeper as plain values: what a check answers, what an adapter offers, what a plan is made of."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC as UTC
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from operator import eq
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

Json: TypeAlias = Any

BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)  # where a stretch of rows begins that has no other beginning
PROBE_HEADER = "X-Watchkeeper-Probe"
PROBE_PREFIX = "wk-probe-"


# What a check answers


class Status(StrEnum):
    """The six outcomes. `fail`: the world is bad. `error`, `nodata`: we could not see. Only `ok` counts as ok."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    NODATA = "nodata"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured number beside its limit, with an interval and a sample size where it has them."""

    observed: float | None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says about one window: status, a sentence why, the number behind it, and parts (feature, slice, rule -> Reading).

    Further lines of `reason` say what the sentence rests on; they stand in the finding, and not in incidents, letters and lists.
    `data` holds small files by name; `memory` is what this watch's check wants back next time (a frozen dataclass, at most 1 MB as JSON).
    """

    status: Status
    reason: str
    reading: Reading | None = None
    parts: Mapping[str, Reading] = field(default_factory=dict)
    data: Mapping[str, bytes] = field(default_factory=dict)
    memory: Any = None

    @property
    def good(self) -> bool:
        return self.status is Status.OK


def ok(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that the world is as it should be."""
    return Verdict(Status.OK, reason, reading, **more)


def warn(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that somebody should look, soon."""
    return Verdict(Status.WARN, reason, reading, **more)


def fail(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that the world is bad; the only one that may lead to action."""
    return Verdict(Status.FAIL, reason, reading, **more)


def error(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that the watcher could not see."""
    return Verdict(Status.ERROR, reason, reading, **more)


def nodata(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that there was nothing to judge."""
    return Verdict(Status.NODATA, reason, reading, **more)


def skip(reason: str, reading: Reading | None = None, **more: Any) -> Verdict:
    """A Verdict that the check does not apply here."""
    return Verdict(Status.SKIP, reason, reading, **more)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open stretch of event time, [start, end), both aware UTC."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Party:
    """Who is told about a service: a named owner, and who comes next when the owner does not answer."""

    service: str
    team: str | None = None
    owner: str | None = None
    escalation: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()  # channels that reach the owner
    missing: tuple[str, ...] = ()  # owner or escalation names for which no channel is configured


# What a server, a router and a registry offer (adapters implement these)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input or output of a model; a dimension of -1 may have any length."""

    name: str
    datatype: str  # the Open Inference Protocol's words: FP32, INT64, BYTES, ...
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a served model says it takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """What `infer` would put on the wire for one request, for whoever sends it many times over, and adds Host and Content-Length itself."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes
    fields: tuple[str, ...] = ()  # dotted places that a good answer has, where the protocol names any
    verify: bool = True  # whether the server's certificate must be trusted, and by which file of issuers
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What a service's configuration lets a load test do to it; without it there is none."""

    rate: float  # requests a second, at most
    longest: timedelta  # of one run
    errors: float = 0.5  # a run ends early when this share of a second's requests is not answered well
    latency: timedelta | None = None  # ... or their median latency is above this
    lock: str = ""  # a file that is locked while a load test runs against the service: there is at most one


@dataclass(frozen=True, slots=True)
class Answer:
    """One inference answer: the body as decoded JSON, the version that says it answered (None if it does not say), and the seconds it took."""

    body: Json
    version: str | None
    seconds: float


@runtime_checkable
class Server(Protocol):
    """A running model server. Every method may raise a TargetError; none waits longer than the deadline its wire was given."""

    can: frozenset[str]  # of: "version" (says what it serves), "at" (one loaded version can be addressed), "signature", "load" (has `request`)

    def ready(self) -> bool:
        """Whether the model is ready to answer; False is an answer, not an error."""
        ...

    def version(self) -> str | None:
        """The version that answers unversioned requests now; None if the server does not say."""
        ...

    def signature(self) -> Signature | None:
        """Inputs and outputs as the server states them; None if it does not."""
        ...

    def infer(self, request: Json) -> Answer:
        """The answer to one raw request, which is sent as it is but for a probe id where the protocol has one."""
        ...

    def request(self, request: Json) -> Sent:
        """What `infer` would put on the wire, credential included, without sending it; CannotError for what cannot be sent many times over."""
        ...

    def at(self, version: str) -> Server:
        """The same server, asking one loaded version by name; CannotError where the protocol has no such thing."""
        ...


@runtime_checkable
class Router(Protocol):
    """What decides which version gets the traffic."""

    can: frozenset[str]  # of: "switch", "weights"

    def served(self) -> Mapping[str, float]:
        """Share of traffic by version, summing to 1."""
        ...

    @property
    def point(self) -> Action:
        """The action that sends all traffic to `{"to": version}`: compare-and-set on what was served before."""
        ...


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """A raw request and the answer the training code gave to it before any serving code existed."""

    request: Json
    expected: Json


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden rows of one version, the tolerance they were recorded with, and the digest that seals them."""

    version: str
    rows: tuple[GoldenRow, ...]
    rtol: float
    atol: float
    digest: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One registered version: its files by name with sha256 digests, its lineage manifest, and when it was registered."""

    version: str
    digest: str
    files: Mapping[str, str]
    lineage: Mapping[str, Json]
    registered_at: datetime
    declared_good_by: str | None = None


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a model says of n rows: `answer` one class or number each; `scores` n by k, the probability of each of `classes`, where it says that."""

    answer: Any
    scores: Any = None
    classes: tuple[str, ...] = ()


@runtime_checkable
class Model(Protocol):
    """A model that answers rows of a table: a file that is run here, or a server that is asked. What it cannot take is a DataError."""

    can: frozenset[str]  # of: "scores"
    name: str  # what to call it: its version, or the first digits of its file's sha256

    def predict(self, rows: Mapping[str, Any]) -> Predicted:
        """One answer a row; `rows` are columns by name, arrays of one length (float64 with NaN for null where they are numbers, else objects)."""
        ...


@runtime_checkable
class Registry(Protocol):
    """Where versions are written down."""

    can: frozenset[str]  # of: "versions", "golden", "record" (has the Action `record`: {"to": version}, or None, is the one in force),
    # "files" (has `file(version, name)`, where a file of a version lies here), "register" (has the Action `register`, which takes a new version)

    def versions(self) -> Sequence[ModelVersion]:
        """All versions, oldest first."""
        ...

    def version(self, name: str) -> ModelVersion | None:
        """One version; None if it is not registered."""
        ...

    def golden(self, version: str) -> Golden | None:
        """Its golden rows; None if none were recorded. A digest that does not match is an AnswerError."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """One feature of one entity as an online store gave it: the value, since when it is true, and whether the store has it at all.

    A stored null is present; what the store never had, or gives only as a default of its own, is not.
    """

    value: Json
    event_at: datetime | None = None  # the event time of the value; None where the store does not say
    present: bool = True


@runtime_checkable
class OnlineStore(Protocol):
    """Where the service reads features while it serves: the newest value of each, by entity."""

    can: frozenset[str]  # of: "times" (says the event time of each value)

    def ready(self) -> bool:
        """Whether the store is ready to answer; False is an answer, not an error."""
        ...

    def features(self, names: Sequence[str], entities: Sequence[Mapping[str, Json]]) -> Sequence[Mapping[str, Fetched]]:
        """One mapping for each entity, in their order: feature name -> Fetched. No names: all that the target is configured to give.

        An entity is {join key: value}, the same keys in all. A name the store does not give is an AnswerError that says the nearest one.
        """
        ...


# What a metrics store offers (numbers somebody else measured: users' latency, error shares, orders a minute)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value at the end of a window: its labels, and the number as the store gave it, NaN and the infinities too."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Samples:
    """What a query came to: one Sample a series, none when nothing matched; `warnings` are the store's own doubts about it."""

    series: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Metrics(Protocol):
    """Where numbers are kept that somebody else measures. Each method may raise a TargetError or DataError, and waits no longer than its deadline."""

    can: frozenset[str]  # of: "control" (it was told how to see that the world is seen)
    smallest: str  # the smallest query there is, which shows that it answers

    def query(self, text: str, window: Window) -> Samples:
        """The query's value at the end of the window, in the store's own language; it may refer to the window (docs/targets.md says how)."""
        ...

    def sighted(self) -> str:
        """A sentence saying what shows that this store sees the world right now; empty when nothing does."""
        ...


# What a repository of code offers


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: who wrote it, who put it where it is, when, and who says in it that they looked it over (`Reviewed-by` and its like)."""

    id: str
    author: str
    committer: str
    at: datetime
    parents: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    subject: str = ""


@runtime_checkable
class Code(Protocol):
    """Where what runs is written down. A commit may be named by the first digits of its id, a branch or a tag."""

    can: frozenset[str]
    branch: str  # the one that counts

    def commit(self, name: str) -> Commit | None:
        """One commit; None if the repository has none of that name."""
        ...

    def merged(self, name: str) -> Commit | None:
        """The commit by which another came onto the branch (itself where it was made there); None if it is not on it."""
        ...

    def commits(self, since: datetime) -> Sequence[Commit]:
        """Those on the branch that are not older, newest first."""
        ...

    def read(self, path: str, at: str | None = None) -> bytes | None:
        """A file as of a commit, or of the branch; None if it is not there."""
        ...

    def changed(self, paths: Sequence[str]) -> Sequence[str]:
        """The files among these (or all) that lie there otherwise than the branch has them."""
        ...

    def data(self, at: str | None = None) -> Mapping[str, str]:
        """What DVC has pinned as of a commit, or of the branch: path -> md5."""
        ...

    def holds(self, path: str, md5: str) -> bool | None:
        """Whether data of DVC can be read back as it was pinned, from its cache or where it lies; None where it is neither place."""
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A report that another tool wrote: its name, what it says (its JSON, or what a binary one was read as), and when it was written."""

    name: str
    body: Json
    written_at: datetime


@runtime_checkable
class Reports(Protocol):
    """Where another tool leaves its reports."""

    def newest(self) -> Document | None:
        """The newest report; None when there is none yet. A file cut short, too large or of another form is a DataError."""
        ...


@runtime_checkable
class Data(Protocol):
    """What decides which version of its data a service reads: a link, a view, the newest version of a table."""

    can: frozenset[str]

    def versions(self) -> Sequence[str]:
        """What could be pointed at, oldest first."""
        ...

    @property
    def point(self) -> Swap:
        """The action that points at `{"to": version}`; what it reads is the version that is read now."""
        ...

    def seen(self, table: Locator, version: str) -> Locator | None:
        """Where that table would be, were that version pointed at; None when it is not read through this."""
        ...


@runtime_checkable
class Process(Protocol):
    """What runs a server."""

    can: frozenset[str]

    @property
    def restart(self) -> Action:
        """The action that restarts it."""
        ...


# Tables (agent/targets/files.py and others; the annotation on a check's parameter says which of the two it needs)

Kind: TypeAlias = Literal["number", "integer", "text", "boolean", "time", "bytes", "list", "other"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What to count in one column: nulls and rows always; low, high, sum where it is a number or time; counts in cells or by key where given.

    `cuts` c1 < ... < ck ask for the k + 1 counts of (-inf, c1], (c1, c2], ..., (ck, inf); NaN counts as null.
    `keys` ask for the count of each key; what equals none of them is counted under None. `top` asks for the counts of the most frequent values.
    """

    column: str
    cuts: tuple[float, ...] = ()
    keys: tuple[str, ...] = ()
    top: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts one Ask came back with; times are given as POSIX seconds. Two tallies of one Ask add up (`merge`)."""

    rows: int
    nulls: int
    low: float | None = None
    high: float | None = None
    total: float | None = None
    counts: tuple[int, ...] = ()
    by_key: Mapping[str | None, int] = field(default_factory=dict)


class Table(Protocol):
    """Rows that stay where they are; only counts travel. Rows matched by the target's `exclude` are never in it."""

    can: frozenset[str]  # of: "columns" (it is a Columns, and hands rows over), "digest" (has `digest()`, the sha256 of the files it is)

    def kinds(self) -> Mapping[str, Kind]:
        """Column name -> kind, as stored."""
        ...

    def rows(self) -> int:
        """How many rows."""
        ...

    def between(self, start: datetime, end: datetime) -> Table:
        """The rows whose declared event time is in [start, end)."""
        ...

    def tally(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """One pass over the rows: column name -> Tally."""
        ...

    def digest(self) -> str:
        """sha256 of the files that hold it as they lie there, whatever stretch of it this is; CannotError where it is no file."""
        ...

    @property
    def declared(self) -> Mapping[str, Json]:
        """The prediction log contract as configured (time, id, features, prediction ...); empty for a plain table."""
        ...


class Columns(Table, Protocol):
    """A Table that can also hand over whole columns, one at a time."""

    def between(self, start: datetime, end: datetime) -> Columns:
        """The rows whose declared event time is in [start, end)."""
        ...

    def column(self, name: str) -> Iterator[Any]:
        """The column as numpy arrays, chunk by chunk (float64 with NaN for null where it is a number; object with None otherwise)."""
        ...

    def chunks(self, names: Sequence[str], spelled: Container[str] = ()) -> Iterator[Mapping[str, Any]]:
        """Several columns side by side in one pass, chunk by chunk: the same place in each is the same row. Those in `spelled` come as text."""
        ...

    def head(self, names: Sequence[str], limit: int, newest: bool = True) -> Sequence[Mapping[str, Json]]:
        """At most `limit` whole rows as dicts, the newest by event time first."""
        ...


# Plans: what a runbook returns, what is approved, journalled and resumed


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands in a step's args for a field of an earlier step's output."""

    step: str
    field: str


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a plan. `action` is "role.verb"; `otherwise` says what a failure of it means for the run.

    undo: what was changed is taken back. stop: it stays as it is, and a person is called. go on: the run goes on without it. `unseen` says the same
    of a step of which nobody could tell until its time was over, where that is another matter: a run that has left what is known to be bad stays
    where it is rather than go back blindly.

    What a run goes on without it does not depend on either: where such a step would write is not waited for, not leased, and not taken back.
    """

    name: str
    action: str
    args: Mapping[str, Json | Ref]
    within: timedelta
    otherwise: Literal["undo", "stop", "go on"] = "undo"
    why: str = ""
    unseen: Literal["undo", "stop"] | None = None


@dataclass(frozen=True)
class Plan:
    """A straight line of steps. `seen` is what planning saw, per role; a changed world expires the plan.

    `undo` has, by step, the args that would put back what it changes: None where it cannot be, nothing where that is known only once it is done.
    """

    runbook: str
    service: str
    reason: str
    evidence: tuple[str, ...]
    seen: Mapping[str, Json]
    steps: tuple[Step, ...]
    made_at: datetime
    good_until: datetime
    undo: Mapping[str, Json] = field(default_factory=dict)
    aside: tuple[str, ...] = ()  # steps that change something the run does not depend on: no lease is taken for it, and it is not taken back

    @cached_property
    def digest(self) -> str:
        """sha256 of the whole plan: what an approval binds."""
        return digest(to_json(self))


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt at a step: its idempotency key, the fencing token of the lease it acts under, when it must be over, what `before` saw."""

    key: str
    token: int
    deadline: datetime
    before: Json
    number: int
    began_at: datetime
    run: int = 0  # whose step it is, and
    step: str = ""  # what that is called
    leaving: bool = False  # whether it is about to be taken back: looked at for what of it stands


@dataclass(frozen=True, slots=True)
class Done:
    """The world is as the step wants it; `output` are the fields later steps may refer to."""

    output: Mapping[str, Json] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """Seen, and not so yet; look again in `again`. When the step's time is over it has failed."""

    again: timedelta
    said: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """A strong claim: the effect has certainly not happened and is not on its way."""

    said: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The step cannot succeed; `said` tells why."""

    said: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not tell, now; never acted on, only looked at again (in `again`) until the step's `within` is over."""

    said: str
    again: timedelta = timedelta(milliseconds=200)


Look: TypeAlias = Done | Pending | Absent | Failed | Unknown


@runtime_checkable
class Action(Protocol):
    """A verb of a target. Only `look` can say done; the reply of `do` is never believed.

    An action may also state `takes`, the args it knows, and `gives`, the fields of its output: then a plan that names others is refused; where it
    takes a `keep`, the names in it are fields too. `wrong(args)` says what no world could make right in them, and `folds` False that each of its
    steps is taken back by itself, where else those of one verb go straight back to how it was before the first. `adds` says that it makes
    something new which nobody uses yet: nothing is taken back, and a run that ends after it has broken nothing. `leave(args, t)` ends what is
    under way, where nobody will wait for it any more.
    """

    @property
    def writes(self) -> bool:
        """Whether `do` changes the world of the service, which takes permission and a lease; telling or asking somebody does not."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether `do` may be repeated: it compares and sets, or is idempotent by `Try.key`."""
        ...

    def before(self, args: Mapping[str, Json]) -> Json:
        """What stands now and `undo` would put back."""
        ...

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        """What the world shows."""
        ...

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        """Make it so."""
        ...

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        """The args with which this same action puts it back; None = cannot be undone (said in --dry-run)."""
        ...


@dataclass(frozen=True, slots=True)
class Swap:
    """The Action most routers need: one value, read back after a compare-and-set write.

    `read()` gives the value; `write(value, expected)` must refuse when the value is no longer `expected`; `same` tells whether two values are one;
    `word` says what the value is, when it is.
    """

    read: Callable[[], Json]
    write: Callable[[Json, Json], None]
    writes: bool = True
    repeatable: bool = True
    same: Callable[[Json, Json], bool] = eq
    takes: frozenset[str] = frozenset({"to"})
    gives: frozenset[str] = frozenset({"from", "to"})
    word: str = "pointed at"

    def before(self, args: Mapping[str, Json]) -> Json:
        return self.read()

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        now = self.read()
        told = "nothing" if now is None else now
        if self.same(now, args["to"]):
            return Done({"from": t.before, "to": now}, f"{told} is {self.word}")
        if self.same(now, t.before):
            return Absent(f"{told} is still {self.word}")
        return Failed(f"{told} is {self.word}, which this run did not ask for: somebody else moved it")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        self.write(args["to"], t.before)

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return {"to": before}


# Text and digests


_PLAIN = frozenset({str, int, float, bool, type(None)})  # of one's own type, which most values are, and which costs nothing to tell


def to_json(value: Any) -> Json:
    """Dataclasses, datetimes and durations as JSON values: what is hashed, stored and sent over a line."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (dict, Mapping)):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Ref):
        return {"from": f"{value.step}.{value.field}"}
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def canonical(value: Json) -> str:
    """The one JSON text of a value: keys sorted, nothing between, letters as they are."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Json) -> str:
    """sha256 of the canonical JSON text of a value."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def speakable(text: str) -> str:
    """Text that can be written as UTF-8: the half characters JSON lets through become question marks."""
    return text.encode("utf-8", "replace").decode()


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration(text: str) -> timedelta:
    """ "250ms", "10s", "1h30m", "90d" -> timedelta; ValueError says what is wrong."""
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().replace(" ", ""):
        raise ValueError(f"no duration {text!r}; write a number with a unit, such as 250ms, 10s, 5m, 1h30m or 90d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def spell(length: timedelta) -> str:
    """A timedelta as a person writes it: 1h30m, 10s, 250ms."""
    seconds = length.total_seconds()
    if seconds < 0:
        return f"-{spell(-length)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    out, left = "", round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size:
            out += f"{left // size}{unit}"
            left %= size
    return out


def brief(length: timedelta) -> str:
    """A length in its largest whole unit, rounded down: what is printed never claims more than there was."""
    return rough(length, 1)


def rough(length: timedelta, units: int = 2) -> str:
    """A length in its largest whole unit and those next to it, rounded down: "3 h 20 min"."""
    seconds = max(0, int(length.total_seconds()))
    whole = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((n for n, (count, _) in enumerate(whole) if count), 3)
    return " ".join(f"{count} {unit}" for n, (count, unit) in enumerate(whole) if n == first or (first < n < first + units and count))


def reach(length: timedelta, wanted: timedelta) -> str:
    """ "3 min of 28 d"."""
    return f"{brief(min(length, wanted))} of {brief(wanted)}"


# Where things are and how to be let in (made by config, handed to adapters; goes to workers over a pipe, never to the store)


@dataclass(frozen=True, slots=True)
class Auth:
    """One credential. `kind` is bearer, basic, header, oauth2 or mtls; `values` are its secrets, hidden from repr, logs and JSON."""

    kind: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Locator:
    """Where a target is and how to reach it: a URL whose scheme names the adapter, options of that adapter, and two credentials.

    `look` may only read; `act` may change. With `look` set and `act` not, every action on the target is refused while planning.
    """

    service: str
    role: str
    url: str
    options: Mapping[str, Json] = field(default_factory=dict)
    look: Auth | None = None
    act: Auth | None = None
    verify: bool = True
    ca: str | None = None
    within: timedelta = timedelta(seconds=10)  # the most one exchange may take when no shorter deadline is set
    folder: str = "."  # relative paths in the URL start here: where the configuration lies

    @property
    def scheme(self) -> str:
        """The adapter's name: what stands before "+" or ":"."""
        return self.url.split(":", 1)[0].split("+", 1)[0].lower()

    @property
    def address(self) -> str:
        """The URL without the adapter's name: oip+http://h/m -> http://h/m; parquet:logs/*.parquet -> logs/*.parquet."""
        scheme, _, rest = self.url.partition(":")
        return f"{scheme.split('+', 1)[1]}:{rest}" if "+" in scheme else (self.url if rest.startswith("//") else rest)


# What is remembered (the store takes and gives these; a watch is named "service/name")


@dataclass(frozen=True, slots=True)
class Finding:
    """A Verdict that a watch came to about one window, as it stands in the record."""

    id: int
    watch: str
    service: str
    check: str
    start_at: datetime
    end_at: datetime
    looked_at: datetime
    status: Status
    reason: str
    reading: Reading | None
    parts: Mapping[str, Reading]
    version: str | None
    rule: str
    seconds: float
    files: tuple[str, ...] = ()  # names of what it left as evidence

    @property
    def headline(self) -> str:
        """The first line of the reason: what is told where there is room for one."""
        return self.reason.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The yardstick that a person or a plan pinned for a watch: a stretch of event time, and the finding about just that where there is one."""

    start_at: datetime
    end_at: datetime
    by: str
    why: str
    at: datetime
    finding: Finding | None = None
    data: Mapping[str, bytes] = field(default_factory=dict)  # the finding's files

    @property
    def window(self) -> Window:
        return Window(self.start_at, self.end_at)


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How much is used of the time that an objective leaves to be bad. The objective: what `watch` looks at is good for `target` of the last `over`.

    `bad` is how long of that it was seen to be bad, `history` how long ago the first look in it was, `seen` whether it is still being seen. `burns`
    has for the last 5m, 30m, 1h and 6h the share that was bad over the share that may be: at 1 the budget lasts just as long as it counts.
    """

    objective: str
    watch: str
    target: float
    over: timedelta
    bad: timedelta
    history: timedelta
    seen: bool
    burns: Mapping[str, float]

    @property
    def whole(self) -> timedelta:
        return (1 - self.target) * self.over

    @property
    def used(self) -> float:
        """The share of it that is used; more than 1 when more was bad than may be."""
        return self.bad / self.whole

    @property
    def spent(self) -> bool:
        return self.bad >= self.whole

    @property
    def gone_in(self) -> timedelta | None:
        """How long what is left lasts if all goes on as in the last hour; None when that is no faster than it comes back."""
        if self.spent or self.burns["1h"] <= 1:
            return None
        return (self.whole - self.bad) / (self.burns["1h"] * (1 - self.target))

    def burning(self, fast: float = 14.4, slow: float = 6.0) -> str:
        """By how much it is used too fast and since when, by the windows of the SRE workbook (Beyer et al. 2018, chapter 5); empty when it is not.

        `fast` over 1h, `slow` over 6h: the long window keeps a blip from alarming, a short one beside it ends the alarm soon after the trouble.
        """
        for long, short, limit in (("1h", "5m", fast), ("6h", "30m", slow)):
            if min(self.burns[long], self.burns[short]) >= limit:
                return f"{self.burns[long]:.3g} times too fast over {long} and {short}"
        return ""

    @property
    def said(self) -> str:
        """It in plain words: "41 % used; gone in 3 h 20 min at this rate"."""
        left = f"{rough(self.whole - self.bad)} left of {rough(self.whole)} in {spell(self.over)}"
        rest = f"nothing left of {rough(self.whole)} in {spell(self.over)}" if self.spent else left
        gone = "" if self.gone_in is None else f"; gone in {rough(self.gone_in)} at this rate"
        short = f"; record of {reach(self.history, self.over)}" if self.history < self.over else ""
        return f"{math.floor(100 * self.used + 1e-9):d} % used{gone or f'; {rest}'}{short}{'' if self.seen else '; not seen now'}"


State: TypeAlias = Literal["ok", "bad", "blind", "new"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One row a watch: its last statuses as letters (newest last), whether that is bad, and since when."""

    watch: str
    service: str
    check: str
    status: Status
    statuses: str
    state: State
    since_at: datetime
    looked_at: datetime
    end_at: datetime
    kept_at: datetime
    reason: str
    rule: str
    seq: int

    @property
    def flapping(self) -> bool:
        """Three or more turns from good to not good among the statuses remembered."""
        return sum(a == "o" and b != "o" for a, b in zip(self.statuses, self.statuses[1:], strict=False)) >= 3


@dataclass(frozen=True, slots=True)
class Member:
    """One watch in an incident: since when it is bad, what it said, when it came right."""

    watch: str
    check: str
    since_at: datetime
    reason: str
    cause: str
    cleared_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Watching:
    """A watch as recorded: what its fails point at, whether an open incident has it, and how its last looks (twenty at most) ended, newest first."""

    cause: str
    troubled: bool
    statuses: Sequence[Status]


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of a runbook as recorded; drills are none."""

    id: int
    runbook: str
    state: RunState
    wanted_at: datetime
    ended_at: datetime | None

    @property
    def active(self) -> bool:
        """Whether it waits, or is under way."""
        return self.state in ACTIVE


@dataclass(frozen=True, slots=True)
class Past:
    """What is recorded of the service that a watch belongs to: its other watches by name, and its runs, newest first."""

    watches: Mapping[str, Watching]
    runs: Sequence[Ran]


@dataclass(frozen=True, slots=True)
class Incident:
    """What a service's owner is told about and somebody sees to its end."""

    id: int
    service: str
    state: Literal["open", "acknowledged", "mitigating", "mitigated", "resolved", "reviewed"]
    severity: Literal["page", "ticket"]
    title: str
    opened_at: datetime
    changed_at: datetime
    members: tuple[Member, ...] = ()
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    resolved_at: datetime | None = None
    told: int = 0  # how many people in the line owner, escalation[0], ... have been told

    @property
    def over(self) -> bool:
        return self.state in ("resolved", "reviewed")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the record: a change seen in the world, a step of an incident or a run, a person's act. Append-only."""

    id: int
    at: datetime
    kind: str
    what: str
    service: str | None = None
    incident: int | None = None
    run: int | None = None
    body: Mapping[str, Json] = field(default_factory=dict)


RunState: TypeAlias = Literal[
    "proposed", "awaiting", "running", "compensating", "succeeded", "stopped", "compensated", "stuck", "superseded", "cancelled", "expired", "refused"
]
ACTIVE: tuple[RunState, ...] = ("proposed", "awaiting", "running", "compensating")
Mode: TypeAlias = Literal["observe", "suggest", "approve", "auto"]


@dataclass(frozen=True, slots=True)
class StepRow:
    """How far one step has come. `undo` rows take back what an earlier step left."""

    n: int
    name: str
    action: str
    state: Literal["planned", "intended", "done", "failed", "unseen", "passed over", "undoing", "undone", "left"]
    undo: bool = False
    args: Mapping[str, Json] = field(default_factory=dict)
    before: Json = None
    output: Mapping[str, Json] = field(default_factory=dict)
    said: str = ""
    tries: int = 0
    intended_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A named person's yes to the plan of that digest, and to the step that asked; without a digest to what comes of the runbook they asked for."""

    by: str
    at: datetime
    digest: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a runbook, from wanted to its end."""

    id: int
    runbook: str
    service: str
    state: RunState
    mode: Mode
    by: str
    reason: str
    wanted_at: datetime
    drill: bool = False
    incident: int | None = None
    trigger: str | None = None  # the watch whose finding asked for it
    parameters: Mapping[str, Json] = field(default_factory=dict)
    plan: Plan | None = None
    steps: tuple[StepRow, ...] = ()
    approvals: tuple[Approval, ...] = ()
    parent: str | None = None  # the key of the step that wanted it, "run-12/3"
    recoveries: int = 0
    wake_at: datetime | None = None
    ended_at: datetime | None = None
    said: str = ""
    unread: str = ""  # why the plan, as it was written down, is not one this version can follow

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Who has approved the plan as it stands; nobody approves it twice."""
        own = self.plan.digest if self.plan else ""
        return tuple(dict.fromkeys(one.by for one in self.approvals if one.digest in ("", own)))

    @property
    def wrote(self) -> bool:
        """Whether it has tried to change the world of its service."""
        return self.plan is not None and any(row.tries > 0 and row.action in self.plan.seen for row in self.steps)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in the outbox: sent at least once, under one dedup key."""

    id: int
    key: str
    channel: str
    subject: str
    body: Mapping[str, Json]
    made_at: datetime
    next_at: datetime
    tries: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody is told about matching watches until then; findings and incidents are still recorded."""

    id: int
    match: str  # "service/watch", with * as a wildcard
    start_at: datetime
    until_at: datetime
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads the store: a number that only grows, the name of its holding of the lock, its process, and how often it has renewed this."""

    number: int
    name: str
    by: str
    beat: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """A stretch of time in which one version had the traffic."""

    service: str
    version: str
    since_at: datetime
    until_at: datetime | None = None


def referring(value: Json) -> Json:
    """A value of a plan's JSON with its references made again, however deep they lie: {"from": "train.version"} is Ref("train", "version")."""
    if isinstance(value, Mapping) and set(value) == {"from"} and isinstance(value["from"], str) and "." in value["from"]:
        step, _, name = value["from"].partition(".")
        return Ref(step, name)
    if isinstance(value, Mapping):
        return {name: referring(item) for name, item in value.items()}
    return [referring(item) for item in value] if isinstance(value, list) else value


def plan_from_json(body: Mapping[str, Json]) -> Plan:
    """The Plan whose `to_json` this is; KeyError, TypeError, ValueError, AttributeError or OverflowError where it is that of none."""

    if unknown := {s["otherwise"] for s in body["steps"]} - {"undo", "stop", "go on"}:
        raise ValueError(f"a step ends otherwise in {', '.join(sorted(unknown))}")
    if unknown := {s.get("unseen") for s in body["steps"]} - {"undo", "stop", None}:
        raise ValueError(f"a step that nobody could see ends in {', '.join(sorted(map(str, unknown)))}")
    steps = tuple(
        Step(
            s["name"],
            s["action"],
            {k: referring(v) for k, v in s["args"].items()},
            timedelta(seconds=s["within"]),
            s["otherwise"],
            s.get("why", ""),
            s.get("unseen"),
        )
        for s in body["steps"]
    )
    return Plan(
        body["runbook"],
        body["service"],
        body["reason"],
        tuple(body["evidence"]),
        body["seen"],
        steps,
        datetime.fromisoformat(body["made_at"]),
        datetime.fromisoformat(body["good_until"]),
        body.get("undo", {}),
        tuple(body.get("aside", ())),
    )


def reading_from_json(body: Mapping[str, Json] | None) -> Reading | None:
    """The Reading whose `to_json` this is; None for None."""
    if body is None:
        return None
    interval = body.get("interval")
    return Reading(body.get("observed"), body.get("limit"), (interval[0], interval[1]) if interval else None, body.get("n"), body.get("unit", ""))
