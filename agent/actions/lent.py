"""An action of a target, on a connection borrowed for one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent.config import ServiceConfig
from agent.errors import PlanError
from agent.model import Action, Json, Locator, Look, Try
from agent.wire import deadline
from agent.world import World

BEFORE = timedelta(seconds=5)  # the most that reading the present may take


def lent(world: World, service: ServiceConfig, role: str, verb: str) -> Lent:
    """The verb of the target that is bound to a role; PlanError when there is none, or it may not act."""
    at = bound(service, role, f"'{role}.{verb}'")
    with world.connections(at) as adapter:
        action = getattr(adapter, verb, None)
    if not isinstance(action, Action):
        raise PlanError(f"the {role} of {service.name} ({at.scheme}) cannot '{verb}'")
    if action.writes:
        may_change(service, at)
    takes, gives = getattr(action, "takes", None), getattr(action, "gives", None)
    lasts, adds = (bool(getattr(action, word, False)) for word in ("lasts", "adds"))
    return Lent(world, service, role, verb, action.writes, action.repeatable, takes, gives, lasts, adds)


def bound(service: ServiceConfig, role: str, who: str) -> Locator:
    """The target that is bound to a role, for whoever needs it; PlanError when there is none."""
    if role not in service.targets:
        raise PlanError(f"{who} needs a {role}, and {service.name} has none; add services.{service.name}.targets.{role}")
    return service.targets[role]


def may_change(service: ServiceConfig, at: Locator) -> None:
    """PlanError for a target that is shown a credential to look with, and none to act with."""
    if at.look is not None and at.act is None:
        where = f"services.{service.name}.targets.{at.role}.auth.act"
        raise PlanError(f"the {at.role} of {service.name} may only be looked at; add {where} to let it be changed")


@dataclass(frozen=True, slots=True)
class Lent:
    """An action of a target, called on a connection borrowed for that call alone."""

    world: World
    service: ServiceConfig
    role: str
    verb: str
    writes: bool
    repeatable: bool
    takes: frozenset[str] | None = None
    gives: frozenset[str] | None = None
    lasts: bool = False
    adds: bool = False

    def _call(self, method: str, within: timedelta, *args: Any) -> Any:
        with deadline(within), self.world.connections(self.service.targets[self.role]) as adapter:
            return getattr(getattr(adapter, self.verb), method)(*args)

    def before(self, args: Mapping[str, Json]) -> Json:
        return self._call("before", BEFORE, args)

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        found: Look = self._call("look", BEFORE, args, t)
        return found

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        left = t.deadline - self.world.clock()
        self._call("do", max(left, timedelta(milliseconds=50)), args, t)

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        found: Mapping[str, Json] | None = self._call("undo", BEFORE, args, before, output)
        return found
