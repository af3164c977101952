"""Proves over what was recorded that invariants held, whatever happened in between: I1 to I8, each a function from a History to sentences.

Invariants and the way of checking them, a recorded history against a model of it, are those of Jepsen: nothing is asked of the code that ran.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from agent.model import ACTIVE, Event, Finding, Incident, Json, Run, RunState
from agent.respond import PATIENCE, TRIES
from agent.store import Store

ENDS = tuple(f"run.{state}" for state in get_args(RunState) if state not in ACTIVE)
LOSES = (*ENDS, "run.held")  # after these a run holds no lease
ALL = 1_000_000
SLACK = timedelta(seconds=60)  # for commits, and for looks that are under way when their time is over
UNSURE = timedelta(minutes=1)  # that an undo may look without being able to tell
DRILL_HOLDS = timedelta(days=90)
BAD = ("fail", "error")


@dataclass(frozen=True)
class History:
    """All that a store has kept, oldest first; and, where somebody wrote it down, what the target itself says was done to it.

    `effects`: what it was pointed at, one after the other, by anyone but a deployment. `stands`: what it is pointed at in the end.
    `patience`: how many fails in a row, by watch, may pass before somebody must be told; 3 where none is given.
    """

    events: tuple[Event, ...]
    runs: tuple[Run, ...]
    findings: tuple[Finding, ...]
    incidents: tuple[Incident, ...]
    letters: tuple[Mapping[str, Any], ...]
    effects: tuple[Json, ...] | None = None
    stands: Json = None
    patience: Mapping[str, int] | None = None

    def of(self, run: Run, *kinds: str) -> Iterator[Event]:
        return (event for event in self.events if event.run == run.id and (not kinds or event.kind in kinds))

    def first(self, *kinds: str, **values: Any) -> Event | None:
        """The first event of these kinds with these values."""
        return next((e for e in self.events if e.kind in kinds and all(getattr(e, name) == value for name, value in values.items())), None)


def read(store: Store, **more: Any) -> History:
    """The history that a store holds, without steps that nothing in use depends on: nothing is promised of those. `more`: what the target knows."""
    with store.read() as ledger:
        rows = (ledger.events(limit=ALL), ledger.runs(limit=ALL), ledger.findings(limit=ALL), ledger.incidents(limit=ALL), ledger.letters(limit=ALL))
    events, runs, findings, incidents, letters = (tuple(reversed(some)) for some in rows)
    aside = {(run.id, n) for run in runs if run.plan is not None for n, step in enumerate(run.plan.steps) if step.name in run.plan.aside}
    aside |= {(run.id, n) for run in runs if run.plan is not None for n, step in enumerate(run.plan.steps) if run.plan.undo.get(step.name) == {}}
    events = tuple(event for event in events if event.kind != "step" or (event.run, event.body["n"]) not in aside)
    return History(events, runs, findings, incidents, letters, **more)


# I1: one at a time


def one_at_a_time(history: History) -> Iterator[str]:
    """At most one active run of a runbook on a service, and one holder of a lease, whose token only grows; nothing is tried without it."""
    yield from _active(history)
    held: dict[str, tuple[int, int]] = {}  # thing -> run and token; a run without the thing has let it go
    tokens: dict[str, int] = {}
    for event in (event for event in history.events if event.run is not None):
        if event.kind == "run.began":
            for thing in event.body.get("things", ()):
                if thing in held:
                    yield f"run {event.run} took {thing}, which run {held[thing][0]} held"
                if event.body["token"] <= tokens.get(thing, 0):
                    yield f"run {event.run} took {thing} with token {event.body['token']}, which is not new"
                held[thing] = event.run or 0, event.body["token"]
                tokens[thing] = event.body["token"]
        elif event.kind in LOSES:
            held = {thing: holder for thing, holder in held.items() if holder[0] != event.run}
        elif tried(event) and held.get(thing := _thing(event), (0, 0))[0] != event.run:
            yield f"run {event.run} tried {event.body['action']} without holding {thing}"


def _active(history: History) -> Iterator[str]:
    active: dict[tuple[str, str], int] = {}
    runs = {run.id: (run.service, run.runbook) for run in history.runs}
    for event in history.events:
        what = runs.get(event.run or 0, ("", ""))
        if event.kind == "run.wanted" and event.run is not None:
            if active.setdefault(what, event.run) != event.run:
                yield f"run {event.run} was wanted while run {active[what]} of {what[1]} on {what[0]} was active"
        elif event.kind in ENDS and active.get(what) == event.run:
            del active[what]


def _thing(event: Event) -> str:
    return f"{event.service}/{event.body['action'].partition('.')[0]}"


def tried(event: Event) -> bool:
    """Whether the event says that an effect was about to be had."""
    return event.kind == "step" and event.body.get("state") == "intended" and event.body.get("tries", 0) > 0


# I2: once


def once(history: History) -> Iterator[str]:
    """No step is confirmed twice, tried again after that, or more often than allowed; and the target knows of no effect but these."""
    for run in history.runs:
        for (n, undo), events in _steps(history, run).items():
            name = f"run {run.id}, {'undo ' if undo else ''}step {n}"
            confirmed = [place for place, event in enumerate(events) if event.body["state"] == "done"]
            tries = [event.body["tries"] for event in events if tried(event)]
            if len(confirmed) > 1:
                yield f"{name} was confirmed {len(confirmed)} times"
            elif confirmed and any(tried(event) for event in events[confirmed[0] :]):
                yield f"{name} was tried again after it was confirmed"
            if tries != list(range(1, len(tries) + 1)) or len(tries) > TRIES:
                yield f"{name} was tried as numbers {', '.join(map(str, tries))}"
    if history.effects is not None:
        yield from _accounted(history, history.effects)


def _steps(history: History, run: Run) -> dict[tuple[int, bool], list[Event]]:
    found: dict[tuple[int, bool], list[Event]] = {}
    for event in history.of(run, "step"):
        found.setdefault((event.body["n"], event.body["undo"]), []).append(event)
    return found


def _accounted(history: History, effects: Sequence[Json]) -> Iterator[str]:
    """Each effect belongs to a step that tried it, each confirmed one was had, and no step had two."""
    had = Counter(map(_text, effects))
    steps = [events for run in history.runs for events in _steps(history, run).values() if any(map(tried, events))]
    tries = Counter(_text(events[-1].body["args"]["to"]) for events in steps)
    confirmed = Counter(_text(events[-1].body["args"]["to"]) for events in steps if any(event.body["state"] == "done" for event in events))
    for value in sorted({*had, *confirmed}):
        if had[value] > tries[value]:
            yield f"the target was pointed at {value} {had[value]} times, and {tries[value]} steps tried to"
        if had[value] < confirmed[value]:
            yield f"the target was pointed at {value} {had[value]} times, and {confirmed[value]} steps say that they did it"


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


# I3: an end


def one_end(history: History) -> Iterator[str]:
    """A run ends once, as its row says, within the time that its steps have; a bad end is told."""
    for run in history.runs:
        ends = list(history.of(run, *ENDS))
        if run.active:
            last = history.events[-1].at if history.events else run.wanted_at
            if ends or last > _due(history, run):
                yield f"run {run.id} is still {run.state}, though {'it ended' if ends else 'its time is over'}"
            continue
        if [event.kind for event in ends] != [f"run.{run.state}"] or run.ended_at is None:
            yield f"run {run.id} is {run.state}, and its record says {', '.join(event.kind for event in ends) or 'nothing of an end'}"
        elif run.ended_at > _due(history, run):
            yield f"run {run.id} ended {run.ended_at - _due(history, run)} after its time was over"
        if run.state == "stuck" and not any(f"run-{run.id}/stuck" in letter["key"] for letter in history.letters):
            yield f"run {run.id} is stuck, and nobody was told"


def _due(history: History, run: Run) -> Any:
    """When a run must have ended: its steps and their undoing one after the other, counted anew from each restart; before, an hour for people."""
    within = sum((step.within for step in run.plan.steps), timedelta()) if run.plan else timedelta()
    since = [event.at for event in history.of(run, "run.began", "run.recovered", "run.compensating")]
    if any(event.kind == "halt" and event.at >= run.wanted_at for event in history.events):
        return run.wanted_at + timedelta(days=36500)  # halted is halted, until a person says otherwise
    if not any(history.of(run, "run.began")):
        people = run.plan.good_until - run.plan.made_at if run.plan else timedelta(hours=1)
        return run.wanted_at + PATIENCE + people + within + SLACK
    return max(since) + 2 * within + UNSURE * sum(step.undo for step in run.steps) + SLACK


# I4 and I5: incidents


def none_lost(history: History) -> Iterator[str]:
    """What was opened is open for a reason that still stands, or resolved once; somebody was told, or the record says why not."""
    for event in (event for event in history.events if event.kind == "incident.opened"):
        incident = next((one for one in history.incidents if one.id == event.incident), None)
        if incident is None:
            yield f"incident {event.incident} was opened and is gone"
            continue
        resolved = [one for one in history.events if one.kind == "incident.resolved" and one.incident == incident.id]
        if len(resolved) != int(incident.over):
            yield f"incident {incident.id} is {incident.state}, and was resolved {len(resolved)} times"
        if not incident.over and all(member.cleared_at for member in incident.members):
            yield f"incident {incident.id} is {incident.state}, and nothing in it is bad any more: nobody will ever resolve it"
        if not _told(history, incident):
            yield f"nobody was told of incident {incident.id}, and nothing says why"
    for letter in history.letters:
        if letter["state"] not in ("waiting", "sent") and not letter["error"]:
            yield f"letter {letter['key']} to {letter['channel']} was {letter['state']} without a reason"


def _told(history: History, incident: Incident) -> bool:
    kept_quiet = history.first("told.silenced", "incident.suppressed", incident=incident.id)
    return kept_quiet is not None or any(letter["key"].startswith(f"incident-{incident.id}/") for letter in history.letters)


def one_open(history: History) -> Iterator[str]:
    """At most one open incident of a service and severity at any time."""
    keys = {incident.id: (incident.service, incident.severity) for incident in history.incidents}
    is_open: dict[tuple[str, str], int] = {}
    for event in history.events:
        if event.incident not in keys or event.kind not in ("incident.opened", "incident.resolved"):
            continue
        key = keys[event.incident]
        if event.kind == "incident.opened":
            if key in is_open:
                yield f"incident {event.incident} of {key[0]} ({key[1]}) was opened while incident {is_open[key]} was open"
            is_open[key] = event.incident
        elif is_open.get(key) == event.incident:
            del is_open[key]


# I6: permitted


def permitted(history: History) -> Iterator[str]:
    """Nothing is tried before it was allowed: the plan that was sealed, approved by a named person or by a mode that a drill stands behind."""
    for run in history.runs:
        began = None
        for event in history.of(run):
            if event.kind == "run.began":
                began = event
                yield from _allowed(history, run, event)
            elif event.kind == "run.held":
                began = None
            elif tried(event) and began is None:
                yield f"run {run.id} tried {event.body['action']} before it was allowed to begin"
                began = event


def _allowed(history: History, run: Run, began: Event) -> Iterator[str]:
    planned = [event.body.get("digest") for event in history.of(run, "run.planned") if event.id < began.id]
    if run.plan is None or planned != [run.plan.digest]:
        yield f"run {run.id} began with a plan that was not the one sealed before"
    if began.what.startswith("approved by "):
        name = began.what.removeprefix("approved by ")
        if not any(_approval(event, name, planned) for event in history.of(run, "run.approved", "run.wanted") if event.id < began.id):
            yield f"run {run.id} began as approved by {name}, and {name}'s yes to this plan is not in the record"
    elif run.mode != "auto" or not _drilled(history, run, began):
        yield f"run {run.id} began by itself ({run.mode}), and no drill of {run.runbook} stands behind it"
    elif _halted(history, began):
        yield f"run {run.id} began by itself while automatic action was halted"


def _approval(event: Event, name: str, planned: Sequence[Json]) -> bool:
    """Whoever asks for a run, before it has a plan, wants what it will be; a yes to a plan names that plan."""
    if event.kind == "run.wanted":
        return event.what.endswith((f"asked for by {name}", f"drill by {name}"))
    return event.body.get("by") == name and event.body.get("digest") in (None, *planned)


def _drilled(history: History, run: Run, began: Event) -> bool:
    drills = [one.id for one in history.runs if one.drill and (one.service, one.runbook) == (run.service, run.runbook)]
    succeeded = [event for event in history.events if event.kind == "run.succeeded" and event.run in drills and event.id < began.id]
    return any(began.at - event.at <= DRILL_HOLDS for event in succeeded)


def _halted(history: History, at: Event) -> bool:
    last = next((event for event in reversed(history.events) if event.kind in ("halt", "resume") and event.id < at.id), None)
    return last is not None and last.kind == "halt"


# I7: where the traffic is


def in_a_stated_state(history: History) -> Iterator[str]:
    """After a rollback a version that was good has the traffic; after any run it is where the record says, or the record cannot tell and says so."""
    for run in history.runs:
        steps = [events for events in _steps(history, run).values() if any(map(tried, events))]
        if run.state == "succeeded" and run.runbook == "rollback" and not run.drill:
            yield from (said for events in steps for said in _was_good(history, run, events[-1]))
        if steps and run.state in ("stopped", "refused", "expired", "cancelled"):
            yield f"run {run.id} is {run.state}, which says that nothing was changed, and it tried {steps[0][0].body['action']}"
    possible = _possible(history)
    if history.stands is not None and possible and history.stands not in possible:
        yield f"the target is pointed at {_text(history.stands)}, and the record says {' or '.join(map(_text, possible))}"


def _possible(history: History) -> list[Json]:
    """Where the record leaves the target: one place, unless what was tried last was never confirmed; then there, or where it was before."""
    possible: list[Json] = []
    for event in history.events:
        if event.kind in ("change.first", "change.version"):
            seen = event.body["to"]
            possible = [value for value in possible if _names(value, seen)] or [seen]
        elif tried(event):
            possible = [event.body["args"]["to"], event.body["before"]]
        elif event.kind == "step" and event.body["state"] in ("done", "undone") and event.body["tries"]:
            possible = [event.body["args"]["to"]]
    return possible


def _names(value: Json, version: str) -> bool:
    """Whether that is a place where this version has most of the traffic."""
    return value == version or (isinstance(value, Mapping) and bool(value) and max(value, key=lambda name: value[name]) == version)


def _was_good(history: History, run: Run, flip: Event) -> Iterator[str]:
    to, good = flip.body["args"]["to"], False
    for event in history.events:
        if event.id < flip.id and event.service == run.service and event.kind in ("good", "good.spoiled") and event.body.get("version") == to:
            good = event.kind == "good"
    if not good:
        yield f"run {run.id} sent the traffic to {_text(to)}, which was not known to be good"


# I8: heard


def heard(history: History) -> Iterator[str]:
    """A watch that failed so often in a row that it counts is in an incident, or the record says what kept it out."""
    streak: Counter[str] = Counter()
    for finding in history.findings:
        status = finding.status.value
        streak[finding.watch] = streak[finding.watch] + 1 if status == "fail" else 0 if status not in BAD else streak[finding.watch]
        wanted = (history.patience or {}).get(finding.watch, 3)
        if streak[finding.watch] == wanted and not _answered(history, finding):
            yield f"{finding.watch} failed {wanted} times in a row until finding {finding.id}, and no incident has it"


def _answered(history: History, finding: Finding) -> bool:
    members = (m for incident in history.incidents for m in incident.members if m.watch == finding.watch)
    if any(m.since_at <= finding.looked_at and (m.cleared_at is None or m.cleared_at >= finding.looked_at) for m in members):
        return True
    return any(
        event.kind == "suppressed" and event.what.startswith(f"{finding.watch} ") and event.at <= finding.looked_at for event in history.events
    )


INVARIANTS: Mapping[str, Callable[[History], Iterator[str]]] = {
    "I1": one_at_a_time,
    "I2": once,
    "I3": one_end,
    "I4": none_lost,
    "I5": one_open,
    "I6": permitted,
    "I7": in_a_stated_state,
    "I8": heard,
}


def violations(history: History) -> list[str]:
    """Every place where an invariant did not hold, in words; an empty list when all did."""
    return [f"{name}: {said}" for name, holds in INVARIANTS.items() for said in holds(history)]


__all__ = ["INVARIANTS", "History", "read", "violations"]
