"""Makes plans: asks a runbook for its steps, checks them against the actions there are, and notes what they were made on."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from agent import actions, drills, plugins
from agent.config import Asking, ServiceConfig
from agent.errors import CannotError, DeniedError, PlanError, TargetError, WatchkeeperError
from agent.model import Action, Json, Plan, Ref, Run, Status, Step
from agent.rebuild import rebuild
from agent.store import Ledger
from agent.wire import deadline
from agent.world import World

PLANNING = timedelta(seconds=10)


def make_plan(world: World, run: Run) -> Plan:
    """What the runbook would do now, checked against the actions there are; nothing is changed. PlanError says why not."""
    service, plugin = world.service(run.service), plugins.find("runbook", run.runbook)
    now = world.clock()
    with world.store.read() as ledger:
        failed = _failed_already(ledger, run)
        goods = [version for version, _, _ in ledger.goods(run.service) if version not in failed]
        evidence = [f"finding {f.id}" for f in ledger.findings(watch=run.trigger, limit=1)] if run.trigger else []
    words: dict[str, Any] = {"service": run.service, "good": goods, "looks": _looks(world, run.service), "trigger": run.trigger, "now": now}
    words["most"] = service.drills.most if run.drill else 1.0
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
    _fits(steps, known)
    if run.drill and (lasting := next((step for step in steps if getattr(known[step.action], "lasts", False)), None)):
        raise PlanError(f"a drill takes back what it does, and {lasting.action} cannot be taken back")
    until_at = now + service.asking.get(run.runbook, Asking()).within
    return Plan(run.runbook, run.service, run.reason, tuple(evidence), seen_now(world, run.service, steps), steps, now, until_at)


def _failed_already(ledger: Ledger, run: Run) -> set[str | None]:
    """The versions that the watch which asked for this saw fail since its incident opened: no way back leads to them."""
    incident = ledger.incident(run.incident) if run.incident else None
    if incident is None or run.trigger is None:
        return set()
    seen = ledger.findings(watch=run.trigger, since=incident.opened_at, limit=1000)
    return {finding.version for finding in seen if finding.status is Status.FAIL}


def seen_now(world: World, service: str, steps: Sequence[Step]) -> dict[str, Json]:
    """What stands now where the steps would write: what a plan was made on, and what expires it when it changes."""
    found = [(step, actions.find(world, world.service(service), step.action)) for step in steps]
    return {step.action: action.before(step.args) for step, action in found if action.writes}


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
    hints = typing.get_type_hints(function)
    try:
        return {name: rebuild(hints[name], value) for name, value in given.items()}
    except (TypeError, ValueError) as problem:
        raise PlanError(f"{run.runbook}: {problem}") from problem


def _fits(steps: Sequence[Step], known: Mapping[str, Action]) -> None:
    """Each step has a name of its own, its action knows its args, and what it takes from another is a field that an earlier one gives."""
    before: dict[str, Action] = {}
    for step in steps:
        if step.name in before:
            raise PlanError(f"two steps are called '{step.name}'")
        takes = getattr(known[step.action], "takes", None)
        for name, value in step.args.items():
            if takes is not None and name not in takes:
                raise PlanError(f"step '{step.name}': {step.action} takes no '{name}'{plugins.suggest(name, sorted(takes))}")
            for ref in _refs(value):
                _earlier(step, name, ref, before)
        before[step.name] = known[step.action]


def _earlier(step: Step, name: str, ref: Ref, before: Mapping[str, Action]) -> None:
    if ref.step not in before:
        raise PlanError(f"step '{step.name}' takes {name} from '{ref.step}', which is not an earlier step")
    gives = getattr(before[ref.step], "gives", None)
    if gives is not None and ref.field not in gives:
        raise PlanError(
            f"step '{step.name}' takes {name} from '{ref.step}.{ref.field}', which it does not give{plugins.suggest(ref.field, sorted(gives))}"
        )


def _refs(value: Json) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _refs(item)


def _looks(world: World, service: str) -> list[str]:
    """The watches that can look one loaded version over: exact, asking the server."""
    return [w.key for w in world.of_service(service) if w.rules.exact and "server" in w.words and not w.heavy]


def passing(problem: WatchkeeperError) -> bool:
    """Whether the same question may be answered in a moment."""
    return isinstance(problem, TargetError) and not isinstance(problem, (CannotError, DeniedError))
