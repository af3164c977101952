"""Whether the steps of a plan fit together, before anybody sees it: planning asks, and so does the configuration, of the plans it writes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agent.model import Json, Ref, Step
from agent.plugins import suggest


class Misfit(NamedTuple):
    """What is wrong with a step: its place in the plan, the arg it is about or "", and a sentence."""

    n: int
    arg: str
    text: str


def misfits(steps: Sequence[Step], known: Mapping[str, Any]) -> Iterator[Misfit]:
    """Each step has a name of its own, its action knows its args, and what it takes from another is a field that an earlier one gives.

    `known`: what is known of the actions by name, each with `takes` and `gives` where it states them, and `wrong(args)` where it judges them.
    """
    before: dict[str, Step] = {}
    for n, step in enumerate(steps):
        if step.name in before:
            yield Misfit(n, "", f"two steps are called '{step.name}'")
        action = known.get(step.action)
        takes = getattr(action, "takes", None)
        for name, value in step.args.items():
            if takes is not None and name not in takes:
                yield Misfit(n, name, f"step '{step.name}': {step.action} takes no '{name}'{suggest(name, sorted(takes))}")
            for ref in refs(value):
                if text := _unmet(step, name, ref, before, known):
                    yield Misfit(n, name, text)
        if text := getattr(action, "wrong", _nothing)(step.args):
            yield Misfit(n, "", f"step '{step.name}': {text}")
        before[step.name] = step


def _nothing(args: Mapping[str, Json]) -> str:
    return ""


def _unmet(step: Step, name: str, ref: Ref, before: Mapping[str, Step], known: Mapping[str, Any]) -> str:
    if ref.step not in before:
        return f"step '{step.name}' takes {name} from '{ref.step}', which is not an earlier step"
    gives = given(known.get(before[ref.step].action), before[ref.step].args)
    if gives is not None and ref.field not in gives:
        return f"step '{step.name}' takes {name} from '{ref.step}.{ref.field}', which it does not give{suggest(ref.field, sorted(gives))}"
    if before[ref.step].otherwise == "go on":
        return f"step '{step.name}' takes {name} from '{ref.step}', which gives nothing when it is passed over; let it `undo` or `stop` otherwise"
    return ""


def given(action: Any, args: Mapping[str, Json]) -> frozenset[str] | None:
    """The fields of an action's output: those it states, and where it takes a `keep` the names in it; None when it states nothing."""
    gives: frozenset[str] | None = getattr(action, "gives", None)
    kept = args.get("keep") if "keep" in (getattr(action, "takes", None) or ()) else None
    return gives if gives is None or not isinstance(kept, Mapping) else gives | kept.keys()


def refs(value: Json) -> Iterator[Ref]:
    """Every reference in a value, however deep it lies."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs(item)
