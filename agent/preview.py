"""What a plan would do, step by step, in words: what is looked at, what is changed, how that is taken back, and what a failure means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from agent.model import Json, Plan, spell, to_json

NEVER = "cannot be taken back"
PERHAPS = "back to where it stood, if the action can"  # what it is given comes from an earlier step, so nobody could ask it yet
CHILD = "not by this run"
ADDED = "stays: nobody uses it yet"
ASIDE = "stays: the run does not depend on it"


def plan_json(plan: Plan) -> Json:
    """A plan as JSON: with the digest that an approval binds, its steps as a table, and how long all of it may take (seconds)."""
    told = to_json(plan)
    back: dict[str, float] = {}  # all undos of one verb are one
    for step in told["steps"]:
        if step["action"] in told["seen"]:
            back[step["action"]] = max(step["within"], back.get(step["action"], 0.0))
    longest = {"at_most": sum(step["within"] for step in told["steps"]), "back_at_most": sum(back.values())}
    return {**told, "digest": plan.digest, "table": table(told), **longest}


def table(plan: Mapping[str, Json]) -> list[dict[str, Json]]:
    """One row a step, each cell a sentence; `changes` and `back` are empty for a step that only looks."""
    return [_row(n, plan) for n in range(len(plan["steps"]))]


def _row(n: int, plan: Mapping[str, Json]) -> dict[str, Json]:
    steps, seen, undo = plan["steps"], plan["seen"], plan.get("undo", {})
    step = steps[n]
    action, args = step["action"], step["args"]
    aside = step["name"] in plan.get("aside", ())
    writes = action in seen and not aside
    return {
        "n": n + 1,
        "step": step["name"],
        "looks": f"where {action} stands" if writes or aside else f"{action}: {words(args)}",
        "changes": changed(action, args, seen[action]) if writes else f"{action}: {words(args)}" if aside else _apart(step),
        "back": _back(step, undo) if writes else ASIDE if aside else CHILD if _apart(step) else "",
        "within": spell(timedelta(seconds=step["within"])),
        "failing": _failing(step, [one for one in steps[: n + 1] if one["action"] in seen], undo),
        "why": step.get("why", ""),
    }


def _apart(step: Mapping[str, Json]) -> str:
    """What a run within this one changes."""
    return f"what {value(step['args'].get('runbook'))} changes, with a plan and a permission of its own" if step["action"] == "run.child" else ""


def changed(action: str, args: Mapping[str, Json], stands: Json) -> str:
    """What a step changes, from where it stands."""
    if set(args) == {"to"}:
        return f"{action} from {value(stands)} to {value(args['to'])}"
    return f"{action}: {words(args)}; it stands at {value(stands)}"


def _back(step: Mapping[str, Json], undo: Mapping[str, Json]) -> str:
    if step["name"] not in undo:
        return PERHAPS
    args = undo[step["name"]]
    return NEVER if args is None else f"{step['action']} {words(args)}" if args else ADDED


def _failing(step: Mapping[str, Json], done: Sequence[Mapping[str, Json]], undo: Mapping[str, Json]) -> str:
    """What a failure of this step means, given the steps up to it that change something."""
    if step["otherwise"] == "go on":
        return "the run goes on without it"
    if not done:
        return "the run stops; nothing was changed"
    if not (done := [one for one in done if undo.get(one["name"]) != {}]):
        return "the run stops; nothing that is in use was changed"
    stays = [one["name"] for one in done if one["name"] in undo and undo[one["name"]] is None]
    back = [one["name"] for one in done if one["name"] not in stays]
    said = [f"what {together(back)} changed is taken back"] if back else []
    return "; ".join([*said, f"what {together(stays)} changed stays, and a person is called"] if stays else said)


def words(args: Mapping[str, Json]) -> str:
    """The args of an action as people read them."""
    return "; ".join(f"{name} {value(one)}" for name, one in args.items())


def value(one: Json) -> str:
    """A value as people read it; one that an earlier step finds is named by that step."""
    if isinstance(one, Mapping) and set(one) == {"from"}:
        step, _, field = str(one["from"]).partition(".")
        return f"the {field} that {step} finds"
    if isinstance(one, Mapping):
        return ", ".join(f"{name} {value(inner)}" for name, inner in one.items()) or "nothing"
    return ", ".join(map(value, one)) if isinstance(one, (list, tuple)) else "nothing" if one is None else str(one)


def together(names: Sequence[str]) -> str:
    """Names as one says them: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
