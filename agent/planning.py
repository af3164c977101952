"""Makes plans: asks a runbook for its steps, checks them against the actions there are, and notes what they were made on."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from typing import Any

from agent import actions, drills, plugins
from agent.config import Asking, ServiceConfig
from agent.config import parameters as judged
from agent.config.problems import spell_path
from agent.errors import CannotError, DeniedError, PlanError, TargetError, WatchkeeperError
from agent.fitting import misfits, refs
from agent.incidents import AGEING, RELEASE
from agent.model import Action, Json, Plan, Run, Status, Step, to_json
from agent.rebuild import rebuild
from agent.store import Ledger
from agent.wire import deadline
from agent.world import World

PLANNING = timedelta(seconds=10)
UPSTREAM = ("data", "drift")  # causes that lie before the model: what is learned meanwhile may be learned wrong


def make_plan(world: World, run: Run) -> Plan:
    """What the runbook would do now, checked against the actions there are; nothing is changed. PlanError says why not."""
    service, plugin = world.service(run.service), world.config.runbook(run.runbook)
    now = world.clock()
    with world.store.read() as ledger:
        evidence = [f"finding {f.id}" for f in ledger.findings(watch=run.trigger, limit=1)] if run.trigger else []
        words = _words(world, ledger, run, now)
    function = plugin.load()
    with ExitStack() as until, deadline(PLANNING):
        for need in plugin.needs:
            if need.name in plugins.ROLES and need.name in service.targets:
                words[need.name] = until.enter_context(world.connections(service.targets[need.name]))
            elif need.name not in words and not need.optional:
                raise PlanError(f"{run.runbook} needs a {need.name}, and {run.service} has none; add services.{run.service}.targets.{need.name}")
        steps = tuple(function(**{n.name: words[n.name] for n in plugin.needs if n.name in words}, **_parameters(plugin, function, service, run)))
    steps = drills.around(service, plugin, steps) if run.drill else steps
    known = {step.action: actions.find(world, service, step.action) for step in steps}
    if misfit := next(misfits(steps, known), None):
        raise PlanError(misfit.text)
    if run.drill and (lasting := next((step for step in steps if getattr(known[step.action], "lasts", False)), None)):
        raise PlanError(f"a drill takes back what it does, and {lasting.action} cannot be taken back")
    until_at = now + service.asking.get(run.runbook, Asking()).within
    seen = seen_now(world, run.service, steps)
    undo = undos([(step, known[step.action]) for step in steps], seen)
    aside = tuple(step.name for step in steps if step.otherwise == "go on" and known[step.action].writes)
    return Plan(run.runbook, run.service, run.reason, tuple(evidence), seen, steps, now, until_at, undo, aside)


def _words(world: World, ledger: Ledger, run: Run, now: datetime) -> dict[str, Any]:
    """What the platform tells a runbook that asks for it by name."""
    failed = _failed_already(ledger, run)
    return {
        "service": run.service,
        "good": [version for version, _, _ in ledger.goods(run.service) if version not in failed],
        "looks": _looks(world, run.service),
        "judges": [w.key for w in world.of_service(run.service) if w.cause in RELEASE and w.load is None],
        "upstream": _upstream(world, run),
        "trigger": run.trigger,
        "drill": run.drill,
        "most": world.service(run.service).drills.most if run.drill else 1.0,
        "now": now,
    }


def _upstream(world: World, run: Run) -> list[str]:
    """The watches of what lies before the model, but for the one that asked. Where the model is too old, drift has been judged: it is why."""
    asked = world.watched.get(run.trigger or "")
    causes = ("data",) if asked is not None and asked.cause in AGEING else UPSTREAM
    return [w.key for w in world.of_service(run.service) if w.cause in causes and w.key != run.trigger]


def _failed_already(ledger: Ledger, run: Run) -> set[str | None]:
    """The versions that the watch which asked for this saw fail since its incident opened: no way back leads to them."""
    incident = ledger.incident(run.incident) if run.incident else None
    if incident is None or run.trigger is None:
        return set()
    seen = ledger.findings(watch=run.trigger, since=incident.opened_at, limit=1000)
    return {finding.version for finding in seen if finding.status is Status.FAIL}


def seen_now(world: World, service: str, steps: Sequence[Step]) -> dict[str, Json]:
    """What stands now where the steps would write: what a plan was made on, and what expires it when it changes.

    Not where it would go on without: that is neither waited for nor leased, and not taken back.
    """
    found = [(step, actions.find(world, world.service(service), step.action)) for step in steps if step.otherwise != "go on"]
    return {step.action: action.before(step.args) for step, action in found if action.writes}


def undos(steps: Sequence[tuple[Step, Action]], seen: Mapping[str, Json]) -> dict[str, Json]:
    """By step what its action says would put it back, from where it stands now: to there all undos of one verb lead, however many there are.

    A step is left out whose args come from an earlier one, or whose undo wants what is known only once it is done; {} where it only adds what nobody
    uses yet, and there is nothing to put back.
    """
    said: dict[str, Json] = {}
    for step, action in steps:
        if getattr(action, "adds", False):
            said[step.name] = {}
        elif action.writes and not any(refs(step.args)):
            with suppress(LookupError, TypeError, AttributeError):  # it looks for an output that there is not yet
                said[step.name] = to_json(action.undo(step.args, seen[step.action], {}))
    return said


def _parameters(plugin: plugins.Plugin, function: Any, service: ServiceConfig, run: Run) -> dict[str, Any]:
    given = {**service.runbooks.get(run.runbook, {}), **run.parameters}
    known = [parameter.name for parameter in plugin.parameters]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise PlanError(f"{run.runbook} has no parameter '{unknown[0]}'{plugins.suggest(unknown[0], known)}")
    missing = [parameter.name for parameter in plugin.parameters if parameter.default is None and parameter.name not in given]
    if missing:
        raise PlanError(
            f"{run.runbook} needs a {missing[0]}; give it with --param {missing[0]}=..., or services.{service.name}.runbooks.{run.runbook}.with"
        )
    for where, text in judged.problems(plugin, given):
        raise PlanError(f"{run.runbook}: {spell_path(where)}: {text}")
    hints = typing.get_type_hints(function)
    try:
        return {name: rebuild(hints[name], value) for name, value in given.items()}
    except (TypeError, ValueError) as problem:
        raise PlanError(f"{run.runbook}: {problem}") from problem


def _looks(world: World, service: str) -> list[str]:
    """The watches that can look one loaded version over: exact, asking the server, and not about another version anyway."""
    return [w.key for w in world.of_service(service) if w.rules.exact and "server" in w.words and "good" not in w.words and not w.heavy]


def passing(problem: WatchkeeperError) -> bool:
    """Whether the same question may be answered in a moment."""
    return isinstance(problem, TargetError) and not isinstance(problem, (CannotError, DeniedError))
