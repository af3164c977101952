"""A look from its slot to its transaction: look, confirm, fold."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from agent import incidents
from agent.alone import last
from agent.changes import see_data, see_served
from agent.credential import hidden
from agent.judge import judge
from agent.look import Tell, confirmed, look
from agent.model import Finding, Reading, Signal, Status, Verdict, Window, speakable, to_json
from agent.store import Ledger
from agent.world import Watched, World


def observe(world: World, key: str, due_at: datetime, tell: Tell | None = None) -> Future[Finding | None]:
    """Look at one watch as of `due_at` and hand the verdict to the writer; the Future gives the finding that now stands."""
    w = world.find(key)
    window, began, version = w.window(due_at), time.perf_counter(), world.alone(w.service.name)
    verdict = look(world, w, window, tell=tell)
    if verdict.status is Status.FAIL:
        verdict = confirmed(world, w, window, verdict)
    if verdict.status is Status.FAIL:
        see_served(world, w.service)  # so that a change stands in the record before the incident does
        version = world.alone(w.service.name)
        see_data(world, w.service)
        for needed in w.watch.needed:
            world.again(needed)
    now, seconds = world.clock(), time.perf_counter() - began
    if w.load is not None:
        window = Window(window.end, max(now, window.end))  # when the load was made: what was looked at meanwhile judged nothing of it
    if loaded := _loaded(w, window, now, seconds):
        verdict = replace(verdict, reason=_marked(verdict.reason))
    finding = found(w, window, now, verdict, version, seconds)
    urgent = verdict.status is Status.FAIL
    future = world.store.submit(lambda ledger: fold(world, ledger, w, finding, verdict, loaded), urgent=urgent)
    if urgent:
        future.add_done_callback(lambda _: world.wake())
    return future


def _loaded(w: Watched, window: Window, now: datetime, seconds: float) -> bool:
    """Whether a load test ran against the server of this service meanwhile: during the look, or in the window of what reads rows by their time."""
    ran = last(w.lock) if w.lock and w.load is None else None
    if ran is None:
        return False
    return ran.within(window.start, window.end) if "window" in w.words else ran.within(now - timedelta(seconds=seconds), now)


def _marked(reason: str) -> str:
    """The mark stands at the end of the first line, which is what incidents, letters and lists tell."""
    headline, line, rest = reason.partition("\n")
    return f"{headline[:1900]} (a load test ran meanwhile){line}{rest}"


def found(w: Watched, window: Window, now: datetime, verdict: Verdict, version: str | None, seconds: float) -> Finding:
    """The finding a verdict makes, not yet kept."""
    return Finding(
        id=0,
        watch=w.key,
        service=w.service.name,
        check=w.watch.check,
        start_at=window.start,
        end_at=window.end,
        looked_at=now,
        status=verdict.status,
        reason=speakable(_discreet(w, verdict.reason)[:2000]),
        reading=verdict.reading,
        parts=verdict.parts,
        version=version,
        rule=w.rule,
        seconds=round(seconds, 6),
    )


def _discreet(w: Watched, reason: str) -> str:
    """The reason without a secret that a target was shown and echoed, whatever adapter passed it on."""
    for auth in (auth for at in w.locators.values() for auth in (at.look, at.act) if auth is not None):
        reason = hidden(reason, auth)
    return reason


def fold(world: World, ledger: Ledger, w: Watched, finding: Finding, verdict: Verdict, loaded: bool = False) -> Finding | None:
    """The transaction: finding, memory, signal, incident, letters and a wanted run, together or not at all. `loaded`: a load test ran meanwhile.

    A window that was judged already gives back its finding and changes nothing. When the clock was set back, what reads rows by their time
    waits until it is past what it has judged, if that is within a day; what looks at the present goes on.
    """
    if not world.judges(w.key):  # the configuration was changed while it was looked at
        return None
    before = ledger.signal(finding.watch)
    if before is not None and finding.end_at <= before.end_at and not _set_back(w, before, finding):
        return ledger.finding_at(finding.watch, finding.end_at)
    if before is not None and before.rule != finding.rule and verdict.memory is not None:
        finding = replace(finding, reason=f"{finding.reason} (memory started afresh: the watch's settings changed)")
    seq = (before.seq if before else 0) + 1
    kept = incidents.keeps(before, finding.status, w.watch.every, finding.looked_at) and not _known(ledger, before, finding)
    signal = incidents.follow(before, finding, w.rules, seq=seq, kept=kept)
    finding = _remember(ledger, finding, verdict, signal, kept)
    judge(world, ledger, w, before, signal, finding, loaded)
    return finding


def keep_apart(ledger: Ledger, finding: Finding, verdict: Verdict) -> Finding:
    """Keep the finding and memory of a watch that no configuration names: no signal, no incident. A window judged before gives back its finding."""
    if (there := ledger.finding_at(finding.watch, finding.end_at)) is not None:
        return there
    kept = ledger.memory(finding.watch)
    seq = (kept[0] if kept else 0) + 1
    if verdict.memory is not None:
        ledger.put_memory(finding.watch, seq, finding.rule, verdict.memory)
    return replace(finding, id=ledger.keep(verdict.data, **_values(finding, seq)))


def _known(ledger: Ledger, before: Signal | None, finding: Finding) -> bool:
    """Whether that window has its finding already, which it can only have when it is no later than one that was judged."""
    return before is not None and finding.end_at <= before.end_at and ledger.finding_at(finding.watch, finding.end_at) is not None


def _set_back(w: Watched, before: Signal, finding: Finding) -> bool:
    """Whether the clock was set back so far that what was judged before does not count: for rows read by their time, a whole day."""
    return before.looked_at - finding.looked_at > (timedelta(days=1) if "window" in w.words else timedelta(seconds=1))


def _remember(ledger: Ledger, finding: Finding, verdict: Verdict, signal: Signal, kept: bool) -> Finding:
    ledger.put_signal(signal)
    value = finding.reading.observed if finding.reading else finding.seconds
    status, saw = finding.status, (Status.OK, Status.WARN, Status.FAIL)
    ledger.roll_up(finding.watch, finding.looked_at, status is Status.OK, value, bad=status is Status.FAIL, blind=status not in saw)
    if verdict.memory is not None:
        ledger.put_memory(finding.watch, signal.seq, finding.rule, verdict.memory)
    return replace(finding, id=ledger.keep(verdict.data, **_values(finding, signal.seq))) if kept else finding


def _values(finding: Finding, seq: int) -> dict[str, Any]:
    return {
        "watch": finding.watch,
        "service": finding.service,
        "check": finding.check,
        "start_at": finding.start_at,
        "end_at": finding.end_at,
        "looked_at": finding.looked_at,
        "status": finding.status.value,
        "reason": finding.reason,
        "reading": None if finding.reading is None else to_json(_finite(finding.reading)),
        "parts": {name: to_json(_finite(part)) for name, part in finding.parts.items()},
        "version": finding.version,
        "rule": finding.rule,
        "seq": seq,
        "seconds": finding.seconds,
    }


def _finite(reading: Reading) -> Reading:
    """JSON knows no NaN and no infinity: they are kept as missing."""

    def plain(value: float | None) -> float | None:
        return None if value is None or value != value or value in (float("inf"), float("-inf")) else value

    interval = reading.interval
    if interval is not None and (plain(interval[0]) is None or plain(interval[1]) is None):
        interval = None
    return replace(reading, observed=plain(reading.observed), limit=plain(reading.limit), interval=interval)
