"""What people do, each in one transaction: acknowledge, silence, halt, start, approve. The command line and the API share these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from agent import drills, incidents, plugins
from agent.audit import attested, daily
from agent.changes import registered
from agent.config import Said
from agent.errors import PlanError
from agent.look import Tell
from agent.model import Approval, Baseline, Finding, Incident, Json, Plan, Run, Silence, Window, spell
from agent.observe import observe
from agent.planning import make_plan
from agent.respond import abandon, end, harmless
from agent.store import Ledger
from agent.world import World

LONGEST_LOOK = 3600.0


def check(world: World, key: str, tell: Tell | None = None) -> Finding | None:
    """Look at one watch now and remember it as any other look."""
    return observe(world, key, world.clock(), tell).result(timeout=LONGEST_LOOK)


def ack(world: World, incident: int, by: str) -> Incident:
    """Somebody has it: nobody further is told."""

    def do(ledger: Ledger) -> Incident:
        found, now = _incident(ledger, incident), world.clock()
        if found.over:
            raise PlanError(f"incident {incident} is already {found.state}")
        state = "acknowledged" if found.state == "open" else found.state
        taken = replace(found, state=state, acknowledged_by=by, acknowledged_at=now, changed_at=now)
        ledger.save_incident(taken)
        ledger.record(now, "incident.acknowledged", f"acknowledged by {by}", service=found.service, incident=incident)
        return taken

    return world.store.write(do)


def _incident(ledger: Ledger, number: int) -> Incident:
    found = ledger.incident(number)
    if found is None:
        raise PlanError(f"no incident {number}; 'watchkeeper incidents' lists them")
    return found


def review(world: World, incident: int, by: str) -> Incident:
    """A person has looked back at an incident that is over, and written what the record cannot know."""

    def do(ledger: Ledger) -> Incident:
        found, now = _incident(ledger, incident), world.clock()
        if found.state != "resolved":
            raise PlanError(f"incident {incident} is {found.state}, and only one that is resolved can be marked reviewed")
        seen = replace(found, state="reviewed", changed_at=now)
        ledger.save_incident(seen)
        ledger.record(now, "incident.reviewed", f"reviewed by {by}", service=found.service, incident=incident)
        return seen

    return world.store.write(do)


def silence(world: World, match: str, length: timedelta, by: str, why: str) -> Silence:
    """Tell nobody about matching watches for that long; findings and incidents are recorded all the same."""
    if length <= timedelta() or length > timedelta(days=90):
        raise PlanError(f"a silence lasts from 1s to 90d, not {spell(length)}")
    now = world.clock()
    made = Silence(0, match, now, now + length, by, why)
    if not any(incidents.silenced(key, [made], now) for key in (*world.watched, *world.audits)):
        raise PlanError(f"'{match}' matches no watch{plugins.suggest(match, list(world.watched))}; write SERVICE/WATCH, * is a wildcard")

    def do(ledger: Ledger) -> Silence:
        number = ledger.add_silence(match, now, now + length, by, why)
        ledger.record(now, "silence.added", f"{match} for {spell(length)} by {by}: {why}", body={"silence": number})
        return replace(made, id=number)

    return world.store.write(do)


def expire(world: World, number: int, by: str) -> None:
    """End a silence now."""

    def do(ledger: Ledger) -> None:
        if not ledger.expire_silence(number, world.clock()):
            raise PlanError(f"no silence {number} is in force; 'watchkeeper silence list' shows those that are")
        ledger.record(world.clock(), "silence.expired", f"silence {number} ended by {by}", body={"silence": number})

    world.store.write(do)


def pin(world: World, key: str, start: datetime, end: datetime, by: str, why: str) -> Baseline:
    """Make a stretch of event time a watch's yardstick. What the watch has added up so far is let go: it was about the yardstick before."""
    w, now = world.find(key), world.clock()
    if "baseline" not in w.words:
        raise PlanError(f"{w.watch.check} has no yardstick that could be pinned")
    if start >= end or end > now:
        raise PlanError(f"the stretch from {start:%Y-%m-%d %H:%M}Z to {end:%Y-%m-%d %H:%M}Z does not end after its start and before now")

    def do(ledger: Ledger) -> Baseline:
        number = ledger.pin(key, Window(start, end), by, why, now)
        said = f"{start:%Y-%m-%d %H:%M}Z to {end:%Y-%m-%d %H:%M}Z is the yardstick of {key}, pinned by {by}: {why}"
        ledger.record(now, "baseline.pinned", said, service=w.service.name, body={"baseline": number, "watch": key})
        return ledger.baselines()[key][1]

    made = world.store.write(do)
    world.use(world.config)
    return made


def unpin(world: World, key: str, by: str) -> None:
    """Take a watch's pinned yardstick away; it compares with its reference again, if it has one."""
    w, now = world.find(key), world.clock()

    def do(ledger: Ledger) -> None:
        if not ledger.unpin(key, now):
            raise PlanError(f"nothing is pinned for {key}; 'watchkeeper baseline list' shows what is")
        ledger.record(now, "baseline.unpinned", f"{key} has no pinned yardstick any more ({by})", service=w.service.name, body={"watch": key})

    world.store.write(do)
    world.use(world.config)


def halt(world: World, by: str, why: str) -> None:
    """Stop every automatic action until `resume`; people still can act, and looking goes on."""

    def do(ledger: Ledger) -> None:
        ledger.set("halt", {"on": True, "why": f"{why} ({by})"}, world.clock(), by)
        ledger.record(world.clock(), "halt", f"automatic action halted by {by}: {why}")

    world.store.write(do, durable=True)


def resume(world: World, by: str) -> None:
    """Let automatic action go on."""
    file = Path(f"{world.store.path}.halt")
    if file.exists():
        raise PlanError(f"{file} halts as long as it is there; remove it")

    def do(ledger: Ledger) -> None:
        ledger.set("halt", {"on": False, "why": ""}, world.clock(), by)
        ledger.record(world.clock(), "resume", f"automatic action resumed by {by}")

    world.store.write(do, durable=True)
    world.wake()


def good(world: World, service: str, version: str, by: str) -> None:
    """A named person's word that a version is good, so that it can be rolled back to."""
    known = registered(world, world.service(service))
    if known is not None and version not in known:
        raise PlanError(f"no version '{version}' of {service} is registered{plugins.suggest(version, known)}")

    def do(ledger: Ledger) -> None:
        ledger.declare_good(service, version, by, world.clock())
        ledger.record(world.clock(), "good", f"version {version} is good ({by})", service=service, body={"version": version, "by": by})

    world.store.write(do)


def attest(world: World, service: str, said: Said) -> Said:
    """A person's word on a question of the audit, sealed with the time at which it is given. PlanError when it is refused."""

    def do(ledger: Ledger) -> Said:
        now = world.clock()
        meant = attested.judged(said, world.service(service), ledger, now)
        attested.record(ledger, service, meant, now)
        return meant

    return world.store.write(do, durable=True)


def keep_audit(world: World, services: Sequence[str], length: timedelta) -> datetime:
    """Audit these services now and seal what each came to, which is what the next audit is compared with and /metrics tells; when that was."""
    now = world.clock()
    daily.keep(world, [world.service(name).name for name in services], length, now)
    return now


def withdraw(world: World, service: str, item: str, by: str) -> int:
    """Take back everything that was said of a question; how much that was. PlanError where there is nothing, or it stands in the configuration."""

    def do(ledger: Ledger) -> int:
        found = [one for one in attested.words(world.service(service), ledger, world.clock()) if one.said.item == item.upper() and one.event]
        if not found:
            raise PlanError(f"nothing is said of {item} of {service}; 'watchkeeper attest' lists what is")
        if any(one.configured for one in found):
            raise PlanError(f"what is said of {item} stands in the configuration: take it out under services.{service}.attest")
        attested.withdraw(ledger, service, found, by, world.clock())
        return len(found)

    return world.store.write(do, durable=True)


def start(
    world: World,
    runbook: str,
    service: str,
    parameters: Mapping[str, Json],
    by: str,
    drill: bool = False,
    dry_run: bool = False,
    live: bool = False,
    fix: str = "",
) -> Run | Plan:
    """Start a runbook because a person asks for it (which is its approval), or with `dry_run` only plan it.

    The active run of that runbook on that service is returned when there is one: a second trigger attaches to the first, and approves it
    if nobody has. `fix` says why it is one: then it may bring in what is new though an error budget is used up. PlanError when the active one is
    not what was asked for, a drill, or other parameters; and for a drill that nobody allowed (`live`: this person does).
    """
    world.config.runbook(runbook)
    world.service(service)
    now, reason = world.clock(), f"{'drill' if drill else 'asked for'} by {by}"
    if dry_run:
        return make_plan(world, Run(0, runbook, service, "proposed", "approve", by, reason, now, drill=drill, parameters=parameters))

    def do(ledger: Ledger) -> Run:
        if drill:
            drills.permitted(ledger, world.service(service), live)
        incident = next(iter(ledger.open_incidents(service)), None)
        run, new = ledger.want(
            runbook=runbook,
            service=service,
            mode="approve",
            by=by,
            reason=reason,
            wanted_at=now,
            drill=drill,
            incident=incident.id if incident and not drill else None,
            parameters=dict(parameters),
            approvals=(Approval(by, now),),
        )
        said = f"{runbook} {reason}" if new else f"{runbook} {reason}: run {run.id} is already under way"
        ledger.record(now, "run.wanted", said, service=service, run=run.id)
        if fix:
            ledger.record(now, "run.fix", f"tagged as a fix by {by}: {fix}", service=service, run=run.id, body={"by": by, "why": fix})
        return run if new else _attached(ledger, run, drill, parameters, by, now)

    run = world.store.write(do, durable=True)
    world.wake()
    return run


def _attached(ledger: Ledger, run: Run, drill: bool, parameters: Mapping[str, Json], by: str, now: datetime) -> Run:
    if run.drill != drill:
        raise PlanError(f"run {run.id}, {'a drill' if run.drill else 'no drill'}, is under way; wait for its end, or cancel it")
    if parameters and dict(parameters) != dict(run.parameters):
        raise PlanError(f"run {run.id} is under way with other parameters; wait for its end, or cancel it")
    if run.approved_by:
        return run
    taken = replace(run, approvals=(*run.approvals, Approval(by, now)), wake_at=None)
    ledger.save_run(taken)
    body = {"digest": run.plan.digest if run.plan else None, "by": by}
    ledger.record(now, "run.approved", f"approved by {by}, who asked for it", service=run.service, run=run.id, body=body)
    return taken


def approve(world: World, run: int, by: str) -> Run:
    """A person's yes to the plan as it stands, and to the step that asks for it; the world is looked at again before the first effect."""

    def do(ledger: Ledger) -> Run:
        found = _active(ledger, run)
        if found.plan is None:
            raise PlanError(f"run {run} has no plan yet; try again in a moment")
        step = next((row.name for row in found.steps if row.action == "person.approve" and row.state in ("planned", "intended")), "")
        if any(one.by == by and one.step == step for one in found.approvals) or (not step and by in found.approved_by):
            raise PlanError(f"{by} has approved run {run} already" + (f"; {found.said}" if found.said else ""))
        taken = replace(found, approvals=(*found.approvals, Approval(by, world.clock(), found.plan.digest, step)), wake_at=None)
        ledger.save_run(taken)
        said = f"approved by {by} (plan {found.plan.digest[:12]}" + (f", step {step})" if step else ")")
        body = {"digest": found.plan.digest, "by": by, "step": step}
        ledger.record(world.clock(), "run.approved", said, service=found.service, run=run, body=body)
        return taken

    taken = world.store.write(do, durable=True)
    world.wake()
    return taken


def cancel(world: World, run: int, by: str) -> Run:
    """Call off a run that has changed nothing that is in use; what it has under way, such as a training, is ended."""

    def do(ledger: Ledger) -> Run:
        found = _active(ledger, run)
        if found.state not in ("proposed", "awaiting") and not (found.state == "running" and harmless(world, found)):
            raise PlanError(f"run {run} is {found.state}: it is changing things and ends by itself, done or taken back")
        end(world, ledger, run, "cancelled", f"cancelled by {by}", world.clock(), tell=False)
        return ledger.run(run) or found

    over = world.store.write(do, durable=True)
    abandon(world, over)
    return over


def _active(ledger: Ledger, number: int) -> Run:
    found = ledger.run(number)
    if found is None:
        raise PlanError(f"no run {number}")
    if not found.active:
        raise PlanError(f"run {number} is over: {found.state}")
    return found
