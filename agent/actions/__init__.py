"""The verbs a plan can use: those of a service's targets, lent for one call, and the platform's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.actions.child import Child
from agent.actions.clock import Stays, Wait
from agent.actions.command import Ensure, Once
from agent.actions.evidence import Bundle
from agent.actions.hold import Hold
from agent.actions.http import Post, Put
from agent.actions.judge import Judge
from agent.actions.lent import lent
from agent.actions.looks import Better, Calm, Good, Passes, Serves, Steady
from agent.actions.people import Approve, Send
from agent.actions.pin import Pin
from agent.actions.reads import Sound
from agent.actions.sql import Statement
from agent.config import ServiceConfig
from agent.errors import PlanError
from agent.model import Action
from agent.plugins import suggest
from agent.world import World

__all__ = ["PLATFORM", "find"]

# What a plan can do without a target: "role.verb" -> what makes the action for a service.
PLATFORM: Mapping[str, Callable[[World, ServiceConfig], Action]] = {
    "check.better": Better,
    "check.calm": Calm,
    "check.hold": Hold,
    "check.judge": Judge,
    "check.ok": Good,
    "check.passes": Passes,
    "check.serves": Serves,
    "check.sound": Sound,
    "check.stays": Stays,
    "check.steady": Steady,
    "clock.wait": Wait,
    "command.ensure": Ensure,
    "command.run": Once,
    "http.post": Post,
    "http.put": Put,
    "incident.bundle": Bundle,
    "notify.send": Send,
    "person.approve": Approve,
    "run.child": Child,
    "sql.run": Statement,
    "table.pin": Pin,
}
ROLES = frozenset(name.partition(".")[0] for name in PLATFORM)


def find(world: World, service: ServiceConfig, name: str) -> Action:
    """The action "role.verb" on this service; PlanError when the role is not bound or has no such verb."""
    role, _, verb = name.partition(".")
    if name in PLATFORM:
        return PLATFORM[name](world, service)
    if role in ROLES:
        raise PlanError(f"no action '{name}'{suggest(name, PLATFORM)}")
    return lent(world, service, role, verb)
