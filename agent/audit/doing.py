"""What to do about an audit, in order: what the agent can do itself, what wants a person's yes, and what people have to set up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from agent.audit.markdown import steps
from agent.audit.trend import lines
from agent.model import Json

KINDS = {"safe": "safe: it only looks", "live": "live: it reaches what serves, and asks first", "set up": "to be set up by people"}
EFFORTS = {"S": "small", "M": "some configuration", "L": "a platform"}


def todo(told: Mapping[str, Json], service: str, kinds: Collection[str] = tuple(KINDS)) -> dict[str, Json]:
    """The plan of a service, or the part of it that is of these kinds; `final` is the score once it and all before it is done."""
    plan = [one for one in told["plan"] if one["kind"] in kinds]
    whole = len(plan) == len(told["plan"])
    return {
        "service": service,
        "final": told["final"],
        "trend": told["trend"],
        "plan": plan,
        "steps": told["steps"] if whole else [],
        "commands": _commands(plan),
    }


def _commands(plan: Collection[Mapping[str, Json]]) -> list[str]:
    return list(dict.fromkeys(command for one in plan for command in one["commands"]))


def plan_text(told: Mapping[str, Json]) -> str:
    """The plan for a terminal."""
    return "\n".join([*_lines(told), ""])


def _lines(told: Mapping[str, Json]) -> Iterator[str]:
    yield f"{told['service']}: {told['final']:g}/10 now" + (f"; {'; '.join(steps(told))}" if told["steps"] else "")
    yield from (f"  {line}" for line in lines(told["trend"]))
    if not told["plan"]:
        yield "  nothing of this kind is to be done"
    for n, one in enumerate(told["plan"], 1):
        yield f"{n:3} {one['item']:9} +{one['gain']:g}, score then {one['final']:g}; effort {EFFORTS[one['effort']]}; {KINDS[one['kind']]}"
        yield f"              {one['question']} Now: {one['why']}"
        yield f"              do: {one['earn']}"
