"""The rules of incidents as pure functions: when a watch is bad, who joins what, what changed before it, who is told next."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.config.values import AUDIT
from agent.model import Event, Finding, Incident, Member, Signal, Silence, State, Status, spell

LETTERS = {Status.OK: "o", Status.WARN: "w", Status.FAIL: "f", Status.ERROR: "e", Status.NODATA: "n", Status.SKIP: "s"}
STATUSES = {letter: status for status, letter in LETTERS.items()}
KEPT = 20  # statuses a signal remembers
STEADY = 5  # good looks in a row that end a flapping watch's incident
BLIND = 3  # looks in a row that could not see
RELEASE = ("answers", "errors", "latency")  # causes that a version change can have brought
AGEING = ("stale",)  # causes that no change brings, but time
RELEASES = ("change.version", "change.weights")  # such changes: of all the traffic, or of a part of it


@dataclass(frozen=True, slots=True)
class Rules:
    """When a watch counts as bad: at once when exact (its look was already repeated), else `bad` of the last `of`; `clear` good in a row end it."""

    exact: bool = False
    bad: int = 2
    of: int = 3
    clear: int = 2


def trouble(opened: Iterable[Incident], service: str, loads: Collection[str]) -> str:
    """The first open incident in which more of the service is bad than its load tests (`loads`, by watch), in words: no load is made then.

    What an audit misses is nothing that is bad now, and may be a load test.
    """

    def bad(incident: Incident) -> bool:
        mine = [m for m in incident.members if m.watch.startswith(f"{service}/") and m.cleared_at is None and m.cause != AUDIT]
        return any(m.watch not in loads for m in mine)

    return next((f"incident {incident.id} is open ({incident.title})" for incident in opened if bad(incident)), "")


def follow(before: Signal | None, finding: Finding, rules: Rules, *, seq: int, kept: bool) -> Signal:
    """The signal after one more finding."""
    statuses = ((before.statuses if before else "") + LETTERS[finding.status])[-KEPT:]
    old = before.state if before else "new"
    flaps = before is not None and replace(before, statuses=statuses).flapping
    state = _state(old, statuses, rules, flaps)
    return Signal(
        watch=finding.watch,
        service=finding.service,
        check=finding.check,
        status=finding.status,
        statuses=statuses,
        state=state,
        since_at=before.since_at if before and state == old else finding.looked_at,
        looked_at=finding.looked_at,
        end_at=finding.end_at,
        kept_at=finding.looked_at if kept or before is None else before.kept_at,
        reason=finding.headline,
        rule=finding.rule,
        seq=seq,
    )


def _state(old: State, statuses: str, rules: Rules, flapping: bool) -> State:
    clear = max(rules.clear, STEADY) if flapping else rules.clear
    need = 1 if rules.exact else rules.bad
    if statuses[-1] == "f" and statuses[-max(rules.of, need) :].count("f") >= need:
        return "bad"
    if old in ("bad", "blind"):
        if len(statuses) >= clear and set(statuses[-clear:]) == {"o"}:
            return "ok"
        return old
    if statuses[-1] in "ef" and len(statuses) >= BLIND and set(statuses[-BLIND:]) <= {"e", "f"}:
        return "blind"
    return "ok" if statuses[-1] in "ow" else old


def keeps(before: Signal | None, status: Status, every: timedelta, now: datetime) -> bool:
    """Whether a finding gets a row of its own: slow watches always; fast ones when something is not ok, changes, or hourly."""
    if every >= timedelta(minutes=1) or before is None or status is not Status.OK:
        return True
    return before.status is not status or now - before.kept_at >= timedelta(hours=1)


def suppressed_by(needs: Iterable[str], signals: Mapping[str, Signal], failed: bool = False) -> str | None:
    """The first needed watch that is itself bad, or blind where this one could not see either: then this one is recorded, but opens nothing.

    A fail behind a watch that is only blind was seen all the same, and counts.
    """
    hide = ("bad",) if failed else ("bad", "blind")
    return next((name for name in needs if name in signals and signals[name].state in hide), None)


def silenced(watch: str, silences: Iterable[Silence], now: datetime) -> Silence | None:
    """The silence in force for that watch, if there is one."""
    return next((s for s in silences if s.start_at <= now < s.until_at and fnmatch.fnmatchcase(watch, s.match)), None)


def joined(incident: Incident, watch: str) -> Member | None:
    """The watch's place in the incident while it is not cleared."""
    return next((m for m in incident.members if m.watch == watch and m.cleared_at is None), None)


def storm(bad_since: Mapping[str, datetime], services: int, now: datetime, within: timedelta) -> list[str]:
    """The services that turned bad together when they are three, or a fifth of all and at least two; else an empty list."""
    together = sorted(service for service, since in bad_since.items() if abs(now - since) <= within)
    return together if len(together) >= 3 or (len(together) >= 2 and len(together) >= 0.2 * services) else []


# What changed before this?


def began_at_change(onset: datetime, last_ok: datetime | None, changes: Sequence[Event], kinds: Collection[str] = RELEASES) -> Event | None:
    """The version change, of the model or the data, that lies between the last good look and the onset: what a release can be blamed for.

    Without any good look before, a change in the 15 minutes before the onset counts.
    """
    since = last_ok if last_ok is not None else onset - timedelta(minutes=15)
    return next((c for c in changes if c.kind in kinds and since - timedelta(seconds=2) <= c.at <= onset + timedelta(seconds=2)), None)


def before_it(onset: datetime, changes: Sequence[Event], sources: Collection[str]) -> str:
    """The sentence an incident opens with: what changed before it, nearest first, or that nothing was seen to."""
    near = [c for c in sorted(changes, key=lambda c: c.at, reverse=True) if c.at <= onset][:3]
    if near:
        return "changed before it: " + "; ".join(f"{c.what}, {spell(_whole(onset - c.at))} before" for c in near)
    return f"no observed change before it (watched: {', '.join(sorted(sources)) or 'nothing'})"


def last_good(signal: Signal | None, every: timedelta) -> datetime | None:
    """When the watch last looked good, as far as its signal remembers; None when it does not."""
    if signal is None or "o" not in signal.statuses:
        return None
    return signal.looked_at - (len(signal.statuses) - 1 - signal.statuses.rindex("o")) * every


def likely_cause(incident: Incident, runbook: str, failing: Sequence[Signal] = ()) -> str:
    """What else points at something, when a runbook would not help: members of the incident, and watches of the data that fail already."""
    data = [(m.watch, m.since_at, m.reason) for m in incident.members if m.cleared_at is None and m.cause == "data"]
    data += [(s.watch, s.looked_at, s.reason) for s in failing]
    if data:
        watch, since, reason = data[0]
        return f"the data: {watch.split('/', 1)[1]} has been failing since {since:%H:%M:%S}Z ({reason})"
    others = [m for m in incident.members if m.cleared_at is None and m.cause not in RELEASE and m.cause]
    if others:
        return f"{others[0].cause}: {others[0].watch.split('/', 1)[1]} ({others[0].reason})"
    return f"not this version; nothing that {runbook} could put right"


def title(service: str, members: Sequence[Member]) -> str:
    """An incident in one line: the service, its first bad watch, how many more."""
    first = members[0]
    more = f" (+{len(members) - 1} more)" if len(members) > 1 else ""
    return f"{service}: {first.watch.split('/', 1)[-1]}: {first.reason}{more}"


# Who is told


def due_to_tell(incident: Incident, line: int, ack_within: timedelta, now: datetime) -> int:
    """How many people in the line owner, escalation[0], ... should have been told by now."""
    if incident.over or line == 0:
        return 0
    if incident.acknowledged_at is not None:
        return incident.told
    if incident.state in ("mitigating", "mitigated"):
        return max(incident.told, 1)
    return min(line, 1 + max(0, int((now - incident.opened_at) / ack_within)))


def _whole(length: timedelta) -> timedelta:
    return timedelta(seconds=round(length.total_seconds(), 0 if length.total_seconds() >= 10 else 1))
