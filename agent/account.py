"""An incident told as it went: what changed before, when it was seen, who was told, what was done, how it ended; each time from its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from agent.errors import PlanError
from agent.model import Event, Finding, Incident, Json, Member, Run, Status, StepRow, spell, to_json
from agent.preview import changed, together
from agent.runs import account as run_account
from agent.store import Ledger

DAY = timedelta(days=1)
MOST = 5000  # events of an incident that are read
Moments = dict[str, datetime | None]

SAID = {  # what an event is told as; the words of an event not named here are told as they are
    "incident.opened": "the incident opened: {what}",
    "incident.joined": "it was joined by {what}",
    "incident.resolved": "it was {what}",
    "incident.acknowledged": "it was {what}",
    "incident.relapsed": "it came back: {what}",
    "incident.reviewed": "it was {what}",
    "told.silenced": "nobody was told: {what}",
    "run.planned": "run {run} was {what}",
    "run.began": "run {run} may act: {what}",
    "run.proposed": "run {run} waits: {what}",
    "run.awaiting": "run {run} waits for a person: {what}",
    "run.approved": "run {run} was {what}",
    "run.held": "run {run} is held: {what}",
    "run.recovered": "run {run} was {what}",
    "run.compensating": "run {run} begins to take back what it changed: {what}",
    "run.succeeded": "run {run} succeeded: {what}",
    "run.stopped": "run {run} stopped: {what}",
    "run.compensated": "run {run} was taken back: {what}",
    "run.stuck": "run {run} is stuck: {what}",
    "run.superseded": "run {run} had to give way: {what}",
    "run.cancelled": "run {run} was {what}",
    "run.expired": "run {run} expired: {what}",
    "run.refused": "run {run} did not act: {what}",
    "step.said": "run {run} was answered: {what}",
}
STEPS = {  # what a step that only looks, or failed, or was taken back, is told as
    "done": "run {run} looked ({name}): {said}",
    "failed": "run {run} failed at {name}: {said}",
    "unseen": "run {run} could not see what came of {name}: {said}",
    "passed over": "run {run} went on without {name}: {said}",
    "undone": "run {run} took {name} back: {said}",
    "left": "run {run} left {name} as it is: {said}",
}


def account(ledger: Ledger, number: int, now: datetime) -> Json:
    """An incident with all that is recorded about it. PlanError when there is none of that number.

    `story` has a sentence for each thing that happened, `after` it began (seconds, negative before); `summary` is the whole in a few sentences.
    """
    found = ledger.incident(number)
    if found is None:
        raise PlanError(f"no incident {number}; 'watchkeeper incidents' lists them")
    runs = ledger.runs(incident=number)[::-1]
    timeline, letters = _timeline(ledger, found, runs), ledger.letters_about(number)
    told = moments(found, timeline, runs)
    return {
        "incident": to_json(found),
        "summary": list(summary(found, timeline, runs, letters, told, now)),
        "moments": to_json(told),
        "story": story(found, timeline, runs, letters),
        "timeline": to_json(timeline),
        "runs": [run_account(ledger, run) for run in runs],
        "letters": [{name: to_json(one[name]) for name in ("key", "channel", "state", "made_at", "tries", "error")} for one in letters],
        "evidence": {member.watch: to_json(shown) for member in found.members if (shown := _shown(ledger, member)) is not None},
    }


def _timeline(ledger: Ledger, found: Incident, runs: Sequence[Run]) -> list[Event]:
    """The changes before it, what was recorded about it and about its runs, oldest first."""
    events = [*ledger.events(incident=found.id, limit=MOST), *ledger.events("incident.context", incident=found.id, limit=1)]
    for run in runs:
        events += [event for event in ledger.events(run=run.id, limit=200) if event.incident is None]
    named = {n for event in events if event.kind == "incident.context" for n in event.body.get("changes", ())}
    changes = [c for c in ledger.events("change", since=found.opened_at - DAY, until=found.opened_at) if c.id in named]
    changes += [
        c
        for c in ledger.events("change", since=found.opened_at, until=found.resolved_at, limit=1000)
        if c.service in (found.service, None) and c.at > found.opened_at
    ]
    return sorted({event.id: event for event in (*changes, *events)}.values(), key=lambda event: (event.at, event.id))


def _shown(ledger: Ledger, member: Member) -> Finding | None:
    """The newest finding of a watch in an incident that says something is wrong: what can be looked at."""
    found = ledger.findings(watch=member.watch, since=member.since_at - timedelta(seconds=1), until=member.cleared_at, limit=50)
    return next((one for one in found if one.status in (Status.FAIL, Status.WARN, Status.ERROR)), None)


def moments(found: Incident, timeline: Sequence[Event], runs: Sequence[Run]) -> Moments:
    """When what mattered happened; None for what did not. `changed_at` is the last change of the version served before it."""
    before = [event.at for event in timeline if event.kind == "change.version" and event.at <= found.opened_at]
    healed = [run.ended_at for run in runs if run.state == "succeeded" and not run.drill]
    return {
        "changed_at": before[-1] if before else None,
        "opened_at": found.opened_at,
        "acknowledged_at": found.acknowledged_at,
        "mitigated_at": healed[-1] if healed else None,
        "resolved_at": found.resolved_at,
    }


# The story: one sentence a thing


def story(found: Incident, timeline: Sequence[Event], runs: Sequence[Run], letters: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    """Everything that happened, oldest first: `at`, `after` the incident opened (seconds), and a sentence."""
    said = [*_events(timeline, runs), *_steps(runs), *_letters(letters)]
    ordered = sorted(enumerate(said), key=lambda one: (one[1][0], one[0]))
    return [{"at": to_json(at), "after": (at - found.opened_at).total_seconds(), "said": sentence(what)} for _, (at, what) in ordered]


def _events(timeline: Sequence[Event], runs: Sequence[Run]) -> Iterator[tuple[datetime, str]]:
    known, wanted = {run.id: run for run in runs}, set[int | None]()
    for event in timeline:
        run = known.get(event.run or 0)
        if event.kind in ("step", "incident.context"):
            continue
        if event.kind == "run.wanted" and run and run.id not in wanted:
            wanted.add(run.id)
            yield event.at, _wanted(run, event.what)
        else:
            what = event.what.removeprefix(f"{run.runbook}: ") if run else event.what
            yield event.at, SAID.get(event.kind, "{what}").format(what=what, run=event.run)


def _wanted(run: Run, what: str) -> str:
    if run.reason.endswith(f"by {run.by}"):
        return f"run {run.id}, {run.runbook}, was {run.reason}"
    return f"run {run.id}, {run.runbook}, was wanted, for {what.partition(' wanted: ')[2] or run.reason}"


def _steps(runs: Sequence[Run]) -> Iterator[tuple[datetime, str]]:
    for run in runs:
        for row in run.steps:
            at = row.ended_at or row.intended_at or run.ended_at
            if at is not None and row.state in STEPS:
                yield at, _step(run, row)


def _step(run: Run, row: StepRow) -> str:
    if row.state == "done" and row.tries and not row.undo:
        return f"run {run.id} changed {changed(row.action, row.args, row.before)} ({row.name}): {row.said}"
    return STEPS[row.state].format(run=run.id, name=row.name.removeprefix("undo ") if row.undo else row.name, said=row.said or "it said nothing")


def _letters(letters: Sequence[Mapping[str, Json]]) -> Iterator[tuple[datetime, str]]:
    """One sentence for those who were told the same thing with the same success."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Json]]] = {}
    for one in letters:
        groups.setdefault((one["key"], one["state"], one["error"]), []).append(one)
    for (key, state, error), ones in groups.items():
        who, what = together([one["channel"] for one in ones]), key.partition("/")[2]
        text = "" if what == "opened" else f": {ones[0]['body'].get('text', what)}"
        kept = {"sent": "", "dropped": ", which was dropped"}.get(state, f", which was not taken yet ({max(one['tries'] for one in ones)} tries)")
        yield ones[0]["made_at"], f"a letter to {who}{kept}{f' ({error})' if error else ''}{text}"


# The whole in a few sentences


def summary(
    found: Incident, timeline: Sequence[Event], runs: Sequence[Run], letters: Sequence[Mapping[str, Json]], told: Moments, now: datetime
) -> Iterator[str]:
    """What changed before, what was seen, who was told, what was done, how it ended: a sentence or two each."""
    yield sentence(next((event.what for event in timeline if event.kind == "incident.context"), "nothing is recorded about what changed before it"))
    yield from _seen(found)
    yield _told(found, letters)
    yield from _done(runs, timeline)
    yield _ended(found, told, now)


def _seen(found: Incident) -> Iterator[str]:
    if not found.members:
        yield sentence(f"it opened at {found.opened_at:%Y-%m-%d %H:%M:%S}Z: {found.title}")
        return
    first, *more = found.members
    verb = "could not be looked at" if first.cause == "blind" else "was seen to fail"
    yield sentence(f"at {first.since_at:%Y-%m-%d %H:%M:%S}Z {first.watch} {verb}: {first.reason}")
    if more:
        yield sentence(f"{together([member.watch for member in more])} joined it")


def _told(found: Incident, letters: Sequence[Mapping[str, Json]]) -> str:
    sent = list(dict.fromkeys(one["channel"] for one in letters if one["state"] == "sent"))
    who = f"{together(sent)} {'was' if len(sent) == 1 else 'were'} told" if sent else "nobody has been told"
    if found.acknowledged_at is None:
        return sentence(f"{who}, and nobody acknowledged it")
    return sentence(f"{who}; {found.acknowledged_by} acknowledged it {length(found.acknowledged_at - found.opened_at)} after it opened")


def _done(runs: Sequence[Run], timeline: Sequence[Event]) -> Iterator[str]:
    for run in runs:
        lasted = f" after {length(run.ended_at - run.wanted_at)}" if run.ended_at else ""
        yield sentence(f"run {run.id} ({run.runbook}, mode {run.mode}) {'is ' if run.active else ''}{run.state}{lasted}: {run.said or run.reason}")
    if not runs:
        why = next((event.what for event in timeline if event.kind == "incident.suggestion"), "")
        yield sentence("no runbook was wanted" + (f": {why}" if why else ""))


def _ended(found: Incident, told: Moments, now: datetime) -> str:
    if found.resolved_at is None:
        return sentence(f"it is {found.state} still, {length(now - found.opened_at)} after it opened")
    healed = told["mitigated_at"]
    after = f"it was mitigated {length(healed - found.opened_at)} after it opened, and" if healed else "it was"
    return sentence(f"{after} resolved after {length(found.resolved_at - found.opened_at)}")


# Words


def sentence(text: str) -> str:
    """Text as a sentence: a capital first, unless it begins with a name, and a full stop."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    plainly = first.isalpha() and first.islower()
    return (text[:1].upper() + text[1:] if plainly else text) + ("" if text.endswith((".", "!", "?")) else ".")


def length(long: timedelta) -> str:
    """A stretch of time as people say it: to a tenth of a second below ten seconds, else whole ones."""
    seconds = long.total_seconds()
    return spell(timedelta(seconds=round(seconds, 0 if abs(seconds) >= 10 else 1 if abs(seconds) >= 1 else 3)))


def after(seconds: float) -> str:
    """A time from the start of the incident: +1m12s, -12s."""
    return f"{'-' if seconds < 0 else '+'}{length(timedelta(seconds=abs(seconds)))}"
