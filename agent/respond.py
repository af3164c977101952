"""Plans and advances runs. First run, poll and recovery after a crash are one function: intend (durable), look, try (durable), do, look."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from agent import actions, drills, permit
from agent.changes import see_served
from agent.errors import LeaseLostError, PlanError, StoreError, WatchkeeperError
from agent.incidents import likely_cause
from agent.judge import post
from agent.model import Absent, Action, Done, Failed, Json, Look, Pending, Plan, Ref, Run, RunState, Status, StepRow, Try, Unknown
from agent.planning import make_plan, passing, seen_now
from agent.store import Ledger
from agent.world import World

log = logging.getLogger(__name__)
AGAIN = timedelta(milliseconds=200)  # between looks at a world that cannot be seen
TRIES = 3
RECOVERIES = 3  # starts of the daemon that a run may live through before it counts as poison
PATIENCE = timedelta(minutes=2)  # how long a target that does not answer may hold up planning
CHANGED = "the world has changed since it was planned; plan again"


class Responder:
    """Drives every active run; each in at most one thread at a time."""

    def __init__(self, world: World, threads: int = 4) -> None:
        self.world = world
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="respond")
        self._driving: set[int] = set()
        self._lock = threading.Lock()
        self.busy = True  # whether a run was active at the last tick
        self._ending = False
        self._recovered = True
        self._ticked_at = world.clock()

    def recover(self) -> None:
        """After a start: what was under way goes on; what has brought the daemon down again and again is parked and paged.

        While the store cannot be written nothing goes on, and the next tick tries again.
        """
        try:
            self._recover(self.world.clock())
            self._recovered = True
        except StoreError as problem:
            self._recovered = False
            log.warning("runs wait for the store: %s", problem)

    def _recover(self, now: datetime) -> None:

        def count(ledger: Ledger) -> None:
            for run in ledger.runs(active_only=True):
                if run.state not in ("running", "compensating"):
                    continue
                poisoned = run.recoveries >= RECOVERIES
                _begin_anew(ledger, replace(run, recoveries=run.recoveries + 1), now)  # the time we were away does not count against it
                ledger.record(now, "run.recovered", f"taken up again after a restart (number {run.recoveries + 1})", service=run.service, run=run.id)
                if poisoned:
                    end(self.world, ledger, run.id, "stuck", f"{RECOVERIES} restarts while it ran: parked, a person must look", now)

        self.world.store.write(count, durable=True)

    def tick(self, now: datetime) -> list[Future[None]]:
        """Begin to drive every run that is due; the Futures are for those who wait."""
        if not self._recovered:
            self.recover()
        if self._ending or not self._recovered:
            return []
        if now < self._ticked_at - timedelta(seconds=1):  # the clock was set back: what waits for a time of day would wait for too long
            self.world.store.write(lambda ledger: _all_anew(ledger, now))
        self._ticked_at = now
        with self.world.store.read() as ledger:
            active = ledger.runs(active_only=True)
        self.busy = bool(active)
        due = [run.id for run in active if run.wake_at is None or run.wake_at <= now]
        with self._lock:
            new = [number for number in due if number not in self._driving]
            self._driving.update(new)
        return [self._pool.submit(self._drive, number) for number in new]

    def _drive(self, number: int) -> None:
        try:
            while not self._ending and advance(self.world, number):
                pass
        except StoreError as problem:
            log.warning("run %d waits for the store: %s", number, problem)
        except LeaseLostError as problem:
            _ended(self.world, number, "superseded", str(problem))
        except Exception as problem:
            log.exception("run %d", number)
            _ended(self.world, number, "stuck", f"{type(problem).__name__}: {problem}; this is a defect of Watchkeeper or of a plugin")
        finally:
            with self._lock:
                self._driving.discard(number)

    def stop(self) -> None:
        """Begin no further step; a step under way comes to its end."""
        self._ending = True
        self._pool.shutdown(wait=True)


def _all_anew(ledger: Ledger, now: datetime) -> None:
    for run in ledger.runs(active_only=True):
        _begin_anew(ledger, run, now)


def _begin_anew(ledger: Ledger, run: Run, now: datetime) -> None:
    """Count the time of what is under way from now on."""
    ledger.save_run(replace(run, wake_at=None))
    for row in run.steps:
        if row.intended_at is not None and row.state in ("planned", "intended", "undoing"):
            ledger.save_step(run.id, replace(row, intended_at=now))


# One run, one move: True when there may be another at once


def advance(world: World, number: int) -> bool:
    """Make the next move of a run; False when it has ended or waits."""
    with world.store.read() as ledger:
        run = ledger.run(number)
    if run is None or not run.active or (run.wake_at is not None and run.wake_at > world.clock()):
        return False
    if run.unread:
        why = f"another version of Watchkeeper wrote its plan ({run.unread}), and this one does not guess what it means: a person must look"
        return _ended(world, run.id, "stuck", why)
    if run.plan is None:
        return _plan(world, run)
    if run.state == "compensating":
        return _take_back(world, run, run.plan)
    return _next_step(world, run, run.plan)


def _next_step(world: World, run: Run, plan: Plan) -> bool:
    row = next((step for step in run.steps if not step.undo and step.state in ("planned", "intended", "failed", "unseen")), None)
    if row is None:
        return _finish(world, run, plan)
    step = plan.steps[row.n]
    if row.state in ("failed", "unseen"):
        return _failed(world, run, plan, row)
    try:
        action = actions.find(world, world.service(run.service), step.action)
    except WatchkeeperError as problem:
        return _ended(world, run.id, "stuck" if run.wrote else "refused", str(problem))
    if action.writes and run.state != "running":
        return _permit(world, run, plan)
    if action.writes and not run.approved_by and permit.halted(world):
        return _step_back(world, run, row)
    if row.state == "planned" and action.writes and (why := _undone_by_others(world, run, action, row)):
        _keep(world, run, replace(row, state="failed", said=why))
        return True
    expected = {} if run.wrote else plan.seen
    held = _things(plan, run) if run.state == "running" else ()  # what is done before the first effect changes nothing, and needs no lease
    moved, again = carry(world, run, action, row, _resolved(step.args, run.steps), step.within, held, expected)
    if again is not None:
        return _wait(world, run, moved.said, again)
    return True


def _undone_by_others(world: World, run: Run, action: Action, row: StepRow) -> str:
    """Why what this run did last by the same verb does not stand any more: who changed it meant something. Empty while it stands."""
    last = next((one for one in reversed(run.steps) if one.action == row.action and one.n < row.n and one.tries and one.state == "done"), None)
    if last is None:
        return ""
    seen = _look(action, last, _try(world, run, last, AGAIN, ()))
    return f"what {last.name} did does not stand any more: {seen.said}" if isinstance(seen, (Absent, Failed)) else ""


def _step_back(world: World, run: Run, row: StepRow) -> bool:
    """Halted: what has not changed anything yet asks for permission again, on evidence that is fresh then; what has, waits where it is."""
    if run.wrote or row.tries:
        return _wait(world, run, "automatic action is halted", timedelta(seconds=1))

    def back(ledger: Ledger) -> None:
        if not _amend(ledger, run, state="proposed", said="automatic action is halted", wake_at=world.clock() + timedelta(seconds=1)):
            return
        ledger.release(run.id)
        ledger.save_step(run.id, StepRow(row.n, row.name, row.action, "planned"))
        ledger.record(world.clock(), "run.held", "automatic action is halted", service=run.service, incident=run.incident, run=run.id)
        _hand_back(ledger, run, world.clock())

    world.store.write(back, durable=True)
    return False


def carry(
    world: World,
    run: Run,
    action: Action,
    row: StepRow,
    args: Mapping[str, Json],
    within: timedelta,
    things: Sequence[str],
    expected: Mapping[str, Json] | None = None,
) -> tuple[StepRow, timedelta | None]:
    """Bring one step to its end as far as it goes now: (the row as kept, how long to wait before looking again or None when it has ended).

    `expected` is what must stand, by action, for the step to begin at all.
    """
    if row.state == "planned":
        try:
            before = action.before(args)
        except WatchkeeperError as problem:
            return _unseen(world, run, replace(row, args=args, said=f"could not see what stands now: {problem}"), within, passing(problem))
        if (expected or {}).get(row.action, before) != before:
            return _keep(world, run, replace(row, state="failed", said=CHANGED, args=args)), None
        row = _keep(world, run, replace(row, state="intended", args=args, before=before, said="", intended_at=world.clock()), durable=action.writes)
    assert row.intended_at is not None
    while True:
        t = _try(world, run, row, within, things)
        seen, now = _look(action, row, t), world.clock()
        if isinstance(seen, Done):
            done = replace(row, state="done", output=seen.output, said=seen.said, ended_at=now)
            return _keep(world, run, done, durable=action.writes), None
        late = now >= t.deadline
        if late and row.undo and not row.tries and isinstance(seen, Absent):  # whatever held the run up is no reason never to have tried it
            row, late = replace(row, intended_at=now), False
        if isinstance(seen, Failed) or late:
            if late:
                _leave(world, run, action, row, t)
            return _keep(world, run, replace(_missed(row, seen, within), ended_at=now), durable=action.writes), None
        if isinstance(seen, Pending) and not row.said:
            _note(world, run, replace(row, said=seen.said))
        if isinstance(seen, (Pending, Unknown)):
            return replace(row, said=seen.said), seen.again
        if row.tries >= (TRIES if action.repeatable else 1):
            why = f"tried {row.tries} times, and still: {seen.said}"
            return _keep(world, run, replace(row, state="failed", said=why, ended_at=now), durable=True), None
        row = _keep(world, run, replace(row, tries=row.tries + 1), durable=True)
        _do(world, run, action, row, t, things)


def _missed(row: StepRow, seen: Look, within: timedelta) -> StepRow:
    """The row of a step that has come to a bad end: it is known not to be so, or it is not known at all because no look in its time could tell."""
    length = f"{within.total_seconds():g} s"
    if isinstance(seen, Failed):
        return replace(row, state="failed", said=seen.said)
    if not isinstance(seen, Unknown):
        return replace(row, state="failed", said=f"not within {length}: {seen.said}")
    if row.said:
        return replace(row, state="failed", said=f"not within {length}: {row.said}; at last it could not be told: {seen.said}")
    return replace(row, state="unseen", said=f"could not be told within {length}: {seen.said}")


def _note(world: World, run: Run, row: StepRow) -> None:
    """Keep what was seen of a step that is not so yet: it stays known when nothing can be seen any more."""
    world.store.write(lambda ledger: ledger.save_step(run.id, row))


def _leave(world: World, run: Run, action: Action, row: StepRow, t: Try) -> None:
    """Nobody waits for the step any more: what it has under way is ended, where its action can do that."""
    try:
        getattr(action, "leave", lambda args, t: None)(row.args, t)
    except WatchkeeperError as problem:
        said = f"{row.name}: could not be ended: {problem}"
        world.store.write(lambda ledger: ledger.record(world.clock(), "step.said", said, service=run.service, run=run.id))


def abandon(world: World, run: Run) -> None:
    """End what a run that is over has under way."""
    for row in run.steps:
        if row.state == "intended" and row.tries and not row.undo:
            action = actions.find(world, world.service(run.service), row.action)
            _leave(world, run, action, row, _try(world, run, row, AGAIN, ()))


def harmless(world: World, run: Run) -> bool:
    """Whether nothing that is in use was changed by a run so far."""
    return run.plan is None or not _used(world, run, run.plan)


def _unseen(world: World, run: Run, row: StepRow, within: timedelta, passes: bool) -> tuple[StepRow, timedelta | None]:
    """Nothing is begun on a world that cannot be seen: it is looked at again as long as that may pass and the step has time."""
    now = world.clock()
    since = row.intended_at or now
    if not passes or now - since >= within:
        return _keep(world, run, replace(row, state="failed", intended_at=None)), None
    _note(world, run, replace(row, intended_at=since))
    return row, AGAIN


def _try(world: World, run: Run, row: StepRow, within: timedelta, things: Sequence[str]) -> Try:
    assert row.intended_at is not None
    key = f"run-{run.id}/{row.n}{'/undo' if row.undo else ''}"
    return Try(key, 0, row.intended_at + within, row.before, row.tries, row.intended_at, run.id, row.name)


def _look(action: Action, row: StepRow, t: Try) -> Look:
    try:
        return action.look(row.args, t)
    except WatchkeeperError as problem:
        return Unknown(str(problem))


def _do(world: World, run: Run, action: Action, row: StepRow, t: Try, things: Sequence[str]) -> None:
    """Have the effect, if the leases are still ours. What it answers is never believed: the next look tells."""
    with world.store.read() as ledger:
        token = ledger.still_holds(run.id, things) if things else 0
    try:
        action.do(row.args, replace(t, token=token, number=row.tries))
    except WatchkeeperError as problem:
        said = str(problem)
        world.store.write(lambda ledger: ledger.record(world.clock(), "step.said", f"{row.name}: {said}", service=run.service, run=run.id))


def _keep(world: World, run: Run, row: StepRow, durable: bool = False) -> StepRow:
    def keep(ledger: Ledger) -> None:
        ledger.save_step(run.id, row)
        state = f"trying, {row.tries}" if row.state == "intended" and row.tries else row.state
        what = f"{row.name}: {state}" + (f": {row.said}" if row.said and row.state != "intended" else "")
        names = ("n", "undo", "action", "state", "tries", "args", "before", "output")
        body = {name: getattr(row, name) for name in names}
        ledger.record(world.clock(), "step", what, service=run.service, incident=run.incident, run=run.id, body=body)

    world.store.write(keep, durable=durable)
    return row


def _resolved(args: Mapping[str, Json | Ref], rows: Sequence[StepRow]) -> Mapping[str, Json]:
    outputs = {row.name: row.output for row in rows if not row.undo}
    return {name: _resolve(value, outputs) for name, value in args.items()}


def _resolve(value: Json, outputs: Mapping[str, Mapping[str, Json]]) -> Json:
    if isinstance(value, Ref):
        return outputs[value.step][value.field]
    if isinstance(value, Mapping):
        return {name: _resolve(item, outputs) for name, item in value.items()}
    return [_resolve(item, outputs) for item in value] if isinstance(value, (list, tuple)) else value


# Planning and permission


def _plan(world: World, run: Run) -> bool:
    try:
        plan = make_plan(world, run)
    except WatchkeeperError as problem:
        if passing(problem) and world.clock() - run.wanted_at < PATIENCE:
            return _wait(world, run, f"planning waits: {problem}", timedelta(seconds=1))
        return _ended(world, run.id, "refused", str(problem))

    def keep(ledger: Ledger) -> None:
        if not _amend(ledger, run, plan=plan):
            return
        for n, step in enumerate(plan.steps):
            ledger.save_step(run.id, StepRow(n, step.name, step.action, "planned"))
        said = f"planned: {', '.join(step.name for step in plan.steps)}"
        ledger.record(world.clock(), "run.planned", said, service=run.service, incident=run.incident, run=run.id, body={"digest": plan.digest})

    world.store.write(keep, durable=True)
    return True


def _things(plan: Plan, run: Run) -> list[str]:
    return sorted({f"{run.service}/{action.split('.')[0]}" for action in plan.seen})


def _permit(world: World, run: Run, plan: Plan) -> bool:
    """The looks before the first effect are done: may it be had? Then take the leases and begin."""
    verdict = permit.may(world, world.service(run.service), run, plan)
    if verdict.answer != "yes":
        return _not_yet(world, run, verdict)
    try:
        changed = seen_now(world, run.service, plan.steps) != plan.seen
    except WatchkeeperError as problem:
        if passing(problem):
            return _wait(world, run, f"could not see what stands now: {problem}", timedelta(seconds=1))
        return _ended(world, run.id, "refused", str(problem))
    if changed:
        return _ended(world, run.id, "expired", CHANGED)

    def begin(ledger: Ledger) -> str | None:
        now = ledger.run(run.id)
        if now is None or now.state != run.state:  # a person called it off meanwhile
            return None
        things = _things(plan, run)
        held = _hold(world, ledger, run, things)
        if isinstance(held, str):
            return held
        _amend(ledger, run, state="running", said="", wake_at=None)
        body = {"things": things, "token": held}
        ledger.record(world.clock(), "run.began", verdict.why, service=run.service, incident=run.incident, run=run.id, body=body)
        incident = ledger.incident(run.incident) if run.incident else None
        if incident and not incident.over:
            ledger.save_incident(replace(incident, state="mitigating", changed_at=world.clock()))
        return None

    try:
        held = world.store.write(begin, durable=True)
    except PlanError as problem:
        return _ended(world, run.id, "refused", str(problem))
    return True if held is None else _wait(world, run, held, timedelta(seconds=1))


def _not_yet(world: World, run: Run, verdict: permit.Permission) -> bool:
    if verdict.answer == "no":
        return _ended(world, run.id, verdict.state or "refused", verdict.why)
    state: RunState = "awaiting" if verdict.answer == "ask" else run.state
    if run.said == verdict.why and run.state == state:
        return _wait(world, run, verdict.why, timedelta(seconds=1))

    def note(ledger: Ledger) -> None:
        if not _amend(ledger, run, state=state, said=verdict.why, wake_at=world.clock() + timedelta(seconds=1)):
            return
        ledger.record(world.clock(), f"run.{state}", verdict.why, service=run.service, incident=run.incident, run=run.id)
        _tell(world, ledger, run, f"run-{run.id}/{state}", f"{run.runbook} of {run.service} waits: {verdict.why}")

    world.store.write(note)
    return False


def _hold(world: World, ledger: Ledger, run: Run, things: Sequence[str]) -> int | str:
    """The leases of the run. A rollback does not wait for anything else: it supersedes what holds them, in this transaction."""
    if run.parent and (parent := permit.parent_of(run)) in ledger.holders(things):
        raise PlanError(f"run {parent}, which wanted it, holds what it would change: a plan and its child must not change the same")
    held = ledger.hold(things, run.id)
    if isinstance(held, int) or run.runbook != "rollback":
        return held
    holders = ledger.holders(things)
    for other in ledger.runs(active_only=True, service=run.service):
        if other.id in holders - {run.id} and other.runbook != "rollback":
            end(world, ledger, other.id, "superseded", f"superseded by run {run.id} ({run.runbook})", world.clock())
    return ledger.hold(things, run.id)


# Failing and taking back


def _failed(world: World, run: Run, plan: Plan, row: StepRow) -> bool:
    step = plan.steps[row.n]
    ends = step.unseen if step.unseen and row.state == "unseen" else step.otherwise
    if ends == "go on":
        _keep(world, run, replace(row, state="passed over"))
        return True
    unsure = row.tries > 0 and row.state == "failed" and row.said.startswith("tried")
    if not _used(world, run, plan):
        return _ended(world, run.id, "stopped", _declined(world, run, row))
    if unsure and not actions.find(world, world.service(run.service), step.action).repeatable:
        return _ended(world, run.id, "stuck", f"{row.name}: {row.said}; it may or may not have happened, and must not be repeated")
    if ends == "stop":
        return _ended(world, run.id, "stuck", f"{row.name}: {row.said}; what was changed stays as it is, and a person must look")
    return _compensate(world, run, plan, f"{row.name}: {row.said}")


def _declined(world: World, run: Run, row: StepRow) -> str:
    said = f"declined at {row.name}: {row.said}"
    with world.store.read() as ledger:
        incident = ledger.incident(run.incident) if run.incident else None
    if incident is None or row.action != "check.better":
        return said
    data = (world.store.signal(w.key) for w in world.of_service(run.service) if w.cause == "data")
    failing = [signal for signal in data if signal is not None and signal.status is Status.FAIL]
    return f"{said}; likely cause: {likely_cause(incident, run.runbook, failing)}"


def _compensate(world: World, run: Run, plan: Plan, why: str) -> bool:
    """Write down how what was done is taken back: per verb one step, straight to the oldest `before`, newest verb first."""
    done: dict[tuple[str, int], list[StepRow]] = {}
    for row in _used(world, run, plan):
        done.setdefault((row.action, -1 if _says(world, run, row, "folds", True) else row.n), []).append(row)
    rows = [
        StepRow(n, f"undo {rows[-1].name}", rows[-1].action, "planned", undo=True, args=rows[-1].args, before=rows[0].before, output=rows[-1].output)
        for n, rows in enumerate(reversed(done.values()))
    ]

    def keep(ledger: Ledger) -> None:
        if not _amend(ledger, run, state="compensating", said=why, wake_at=None):
            return
        for row in rows:
            ledger.save_step(run.id, row)
        ledger.record(world.clock(), "run.compensating", why or "the drill is taken back", service=run.service, incident=run.incident, run=run.id)

    world.store.write(keep, durable=True)
    return True


def _used(world: World, run: Run, plan: Plan) -> list[StepRow]:
    """The steps that may have changed what is in use; what was only added stays where it is."""
    tried = [row for row in run.steps if not row.undo and row.tries > 0 and row.action in plan.seen]
    return [row for row in tried if not _says(world, run, row, "adds", False)]


def _says(world: World, run: Run, row: StepRow, word: str, else_: bool) -> bool:
    """What the action of a step states of itself."""
    try:
        return bool(getattr(actions.find(world, world.service(run.service), row.action), word, else_))
    except WatchkeeperError:  # told when it is to be taken back
        return else_


def _take_back(world: World, run: Run, plan: Plan) -> bool:
    row = next((r for r in run.steps if r.undo and r.state in ("planned", "intended", "undoing")), None)
    if row is None:
        see_served(world, world.service(run.service))  # the record must not name the version that was only flipped to
        left = [r for r in run.steps if r.undo and r.state in ("left", "failed")]
        if left:
            return _ended(world, run.id, "stuck", f"{run.said}; left as it is: {'; '.join(r.said for r in left)}")
        end: RunState = "succeeded" if run.drill and not run.said else "compensated"
        taken = any(r.undo for r in run.steps)
        drilled = "drilled: flipped, looked at, and flipped back" if taken else "drilled: all of it was done, and nothing had to be taken back"
        return _ended(world, run.id, end, run.said or drilled)
    try:
        action = actions.find(world, world.service(run.service), row.action)
    except WatchkeeperError as problem:
        return _ended(world, run.id, "stuck", f"{run.said}; it cannot be taken back: {problem}")
    if not run.approved_by and permit.halted(world):
        return _wait(world, run, run.said, timedelta(seconds=1))
    if row.state == "planned":
        return _begin_undo(world, run, action, row)
    within = max((step.within for step in plan.steps if step.action == row.action), default=timedelta(seconds=10))
    moved, again = carry(world, run, action, replace(row, state="intended"), row.args, within, _things(plan, run))
    if again is not None:
        return _wait(world, run, run.said, again)
    _keep(world, run, replace(moved, state="undone" if moved.state == "done" else "left"), durable=True)
    return True


def _begin_undo(world: World, run: Run, action: Action, row: StepRow) -> bool:
    """Take back only what this run left: if the world shows anything else, leave it alone and say so."""
    seen, row = _left(world, run, action, row)
    if isinstance(seen, Done):
        try:
            back = action.undo(row.args, row.before, row.output)
            before = action.before(back) if back is not None else None
        except WatchkeeperError as problem:
            seen = Unknown(str(problem))
    if isinstance(seen, (Unknown, Pending)):
        return _undo_later(world, run, row, seen.said)
    if isinstance(seen, Absent):
        moved = replace(row, state="undone", said="it stands as it did before")
    elif isinstance(seen, Failed) or back is None:
        moved = replace(row, state="left", said=seen.said if isinstance(seen, Failed) else "it cannot be undone")
    else:
        moved = replace(row, state="undoing", args=back, before=before, tries=0, intended_at=world.clock())
    _keep(world, run, moved, durable=True)
    return True


def _left(world: World, run: Run, action: Action, row: StepRow) -> tuple[Look, StepRow]:
    """What stands of all that the undo is for, and its row for that: a last try may have come to nothing."""
    folds = getattr(action, "folds", True)
    tried = [one for one in run.steps if one.action == row.action and one.tries and not one.undo and (folds or row.name == f"undo {one.name}")]
    seen: Look = Absent()
    for one in reversed(tried):
        seen = _look(action, one, replace(_try(world, run, one, AGAIN, ()), leaving=True))
        if not isinstance(seen, Absent):
            return seen, replace(row, args=one.args, output=one.output)
    return seen, row


def _undo_later(world: World, run: Run, row: StepRow, said: str) -> bool:
    """It cannot be told what stands: look again, for a minute."""
    if row.intended_at is not None and world.clock() - row.intended_at > timedelta(seconds=60):
        _keep(world, run, replace(row, state="left", said=f"could not tell what stands: {said}"), durable=True)
        return True
    _note(world, run, replace(row, intended_at=row.intended_at or world.clock()))
    return _wait(world, run, run.said, AGAIN)


# Ending


def _finish(world: World, run: Run, plan: Plan) -> bool:
    if run.drill:
        return _compensate(world, run, plan, "")
    done = [row.said for row in run.steps if row.n > _last_written(plan) and row.state == "done" and not row.undo and not row.tries]
    return _ended(world, run.id, "succeeded", "; ".join(done) or "done")


def _last_written(plan: Plan) -> int:
    """The place of the last step that changes something and must succeed: what is told of a run is what was seen after it."""
    return max((n for n, step in enumerate(plan.steps) if step.action in plan.seen), default=-1)


def _ended(world: World, number: int, state: RunState, said: str) -> bool:
    world.store.write(lambda ledger: end(world, ledger, number, state, said, world.clock()), durable=True)
    return False


def end(world: World, ledger: Ledger, number: int, state: RunState, said: str, now: datetime, tell: bool = True) -> None:
    """End a run, whatever it was doing: its leases, its incident, the runs it wanted and the one that waits for it go on from here."""
    run = ledger.run(number)
    if run is None or not run.active:
        return
    ledger.save_run(replace(run, state=state, said=said, ended_at=now, wake_at=None))
    ledger.release(run.id)
    what = f"{run.runbook}: {said}"
    ledger.record(now, f"run.{state}", what, service=run.service, incident=run.incident, run=run.id, body=drills.times(run))
    for child in ledger.children(run.id):
        if not child.wrote:  # what has begun to change things ends by itself
            end(world, ledger, child.id, "cancelled", f"run {run.id}, which wanted it, is {state}", now)
    if state == "succeeded" and not run.drill:
        _settled(ledger, run, now)
    else:
        _hand_back(ledger, run, now)
    if run.parent and (parent := ledger.run(permit.parent_of(run))) and parent.active:
        ledger.save_run(replace(parent, wake_at=None))
    if tell and (not run.drill or state == "stuck"):
        _tell(world, ledger, run, f"run-{run.id}/{state}", f"{run.runbook} of {run.service} {state}: {said}", page=state in ("stuck", "compensated"))


def _settled(ledger: Ledger, run: Run, now: datetime) -> None:
    """It worked: its incident is mitigated, and the version it took the traffic from is not good any more."""
    incident = ledger.incident(run.incident) if run.incident else None
    if incident and not incident.over:
        ledger.save_incident(replace(incident, state="mitigated", changed_at=now))
    for row in run.steps if run.runbook == "rollback" else ():
        for version in _left_behind(row):
            ledger.spoil(run.service, version, f"rolled back from in run {run.id}", now)


def _left_behind(row: StepRow) -> list[str]:
    """The versions from which a step took the traffic."""
    if row.action != "router.point" or row.state != "done":
        return []
    had = row.output.get("from")
    return [version for version in (had if isinstance(had, Mapping) else [had]) if isinstance(version, str) and version != row.output.get("to")]


def _hand_back(ledger: Ledger, run: Run, now: datetime) -> None:
    """It did not: the incident is people's again."""
    incident = ledger.incident(run.incident) if run.incident else None
    if incident and incident.state == "mitigating":
        ledger.save_incident(replace(incident, state="acknowledged" if incident.acknowledged_at else "open", changed_at=now))


def _tell(world: World, ledger: Ledger, run: Run, key: str, said: str, page: bool = False) -> None:
    incident = ledger.incident(run.incident) if run.incident else None
    now, line = world.clock(), world.line(world.config.services.get(run.service))
    if incident is not None:
        post(ledger, incident, line[: max(1, incident.told)], key, said, now)
        return
    severity = "page" if page else "ticket"
    body = {"service": run.service, "run": run.id, "what": key, "severity": severity, "state": run.state, "title": said, "text": said, "at": now}
    for channel in line[:1]:
        ledger.post(key, channel, f"[{severity}] {said}", body, now)


def _wait(world: World, run: Run, said: str, length: timedelta) -> bool:
    world.store.write(lambda ledger: _amend(ledger, run, wake_at=world.clock() + length, said=said or run.said))
    return False


def _amend(ledger: Ledger, run: Run, **values: Any) -> bool:
    """Change the run as it stands now, not as it was read: a person may have approved or cancelled it meanwhile. False when it is over."""
    now = ledger.run(run.id)
    if now is None or now.state != run.state:
        return False
    if "wake_at" in values and now.approvals != run.approvals:
        values["wake_at"] = None
    ledger.save_run(replace(now, **values))
    return True
