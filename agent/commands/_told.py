"""Incidents and runs as text for people: the same JSON values that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.padding import Padding
from rich.text import Text

from agent.account import after, length
from agent.ladder import sentence
from agent.model import Json
from agent.preview import value, words
from agent.show import plain, planned, printed, rows, took, when, word

ENDS = {"refused": "it was not allowed to act", "expired": "it was not allowed to act any more", "stopped": "it stopped", "awaiting": "it waits"}


# Error budgets


def budgets(told: Sequence[Mapping[str, Json]]) -> str:
    body = [
        [each["service"], one["objective"], f"{one['target']:.6g}", one["watch"].partition("/")[2], word(_budget(one)), f"{one['said']}{_fast(one)}"]
        for each in told
        for one in each["objectives"]
    ]
    none = [f"{each['service']}: no objective; add `objectives:` to it" for each in told if not each["objectives"]]
    return printed(*([rows(("service", "objective", "target", "watch", "state", "budget"), body)] if body else []), *none)


def _budget(one: Mapping[str, Json]) -> str:
    return "used up" if one["spent"] else "burning" if one["burning"] else "ok" if one["seen"] else "blind"


def _fast(one: Mapping[str, Json]) -> str:
    return f"; burns {one['burning']}" if one["burning"] else ""


# What people said


def said(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "nobody has said anything\n"
    body = [[one["service"], one["item"], one["kind"], one["by"], when(one["at"]), one["until_at"][:10], _counts(one)] for one in found]
    return printed(rows(("service", "question", "is", "by", "said", "until", "what"), body))


def _counts(one: Mapping[str, Json]) -> str:
    what = f"{one['reason']}: {one['note']}" if one["reason"] else one["note"]
    return f"does not count: {one['void']} ({what})" if one["void"] else what


# Incidents


def incidents(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "no incident\n"
    body = [[i["id"], word(i["state"]), i["severity"], when(i["opened_at"]), when(i["resolved_at"]), i["title"]] for i in found]
    return printed(rows(("incident", "state", "severity", "opened", "resolved", "what"), body))


def incident(told: Mapping[str, Json]) -> str:
    one = told["incident"]
    day = datetime.fromisoformat(one["opened_at"])
    things: list[Any] = [
        Text.assemble((f"incident {one['id']}", "bold"), "  ", word(one["state"]), f"  {one['severity']}"),
        f"  {plain(one['title'])}",
        "",
        *(f"  {plain(said)}" for said in told["summary"]),
        "",
        *(line for member in one["members"] for line in _member(member, day, told["evidence"].get(member["watch"]))),
        "",
        rows(("after", "at", "what happened"), [[after(e["after"]), when(e["at"], day), e["said"]] for e in told["story"]], 2),
    ]
    for one_run in told["runs"]:
        things += ["", *_run(one_run)]
    return printed(*map(_hanging, things))


def _hanging(thing: Any) -> Any:
    """A line that keeps its indent where it wraps."""
    if not isinstance(thing, str) or not thing.startswith(" "):
        return thing
    return Padding(Text(thing.lstrip(" ")), (0, 0, 0, len(thing) - len(thing.lstrip(" "))))


def _member(member: Mapping[str, Json], day: datetime, shown: Mapping[str, Json] | None) -> Iterator[Any]:
    since, cleared = when(member["since_at"], day), when(member["cleared_at"], day)
    state = Text(f"was bad from {since} to {cleared}") if member["cleared_at"] else Text(f"bad since {since}", style="bold red")
    yield Text.assemble(f"  {plain(member['watch'])}  ", state)
    yield f"    {plain(member['reason'])}"
    if shown:
        files = f", which left {', '.join(map(plain, shown['files']))}" if shown["files"] else ""
        yield f"    watchkeeper finding {shown['id']} tells it in full{files}"


# Runs


def history(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "no run\n"
    columns = ("run", "runbook", "service", "state", "wanted", "took", "to effect", "by", "why", "what came of it")
    return printed(rows(columns, [_line(run) for run in found], wraps=2))


def _line(run: Mapping[str, Json]) -> list[Any]:
    by = run["by"] if run["approved_by"] in (None, run["by"]) else f"{run['by']}, approved by {run['approved_by']}"
    name = f"{run['runbook']} (drill)" if run["drill"] else run["runbook"]
    effect, lasted = seconds(run["decision_to_effect"]), seconds(run["took"])
    return [run["id"], name, run["service"], word(run["state"]), when(run["wanted_at"]), lasted, effect, by, run["reason"], run["said"]]


def seconds(long: float | None) -> str:
    return "-" if long is None else length(timedelta(seconds=long))


def run(told: Mapping[str, Json]) -> str:
    return printed(*map(_hanging, _run(told)))


def _run(told: Mapping[str, Json]) -> Iterator[Any]:
    day, kind = datetime.fromisoformat(told["wanted_at"]), "drill of " if told["drill"] else ""
    yield Text.assemble((f"run {told['id']}", "bold"), "  ", word(told["state"]), f"  {kind}{plain(told['runbook'])} on {plain(told['service'])}")
    yield f"  asked for by {plain(told['by'])} {when(told['wanted_at'])}, in mode {told['mode']}: {plain(told['reason'])}"
    yield from _rests_on(told, day)
    if told["said"]:
        yield f"  {ENDS.get(told['state'], told['state'])}: {plain(told['said'])}"
    if told["ended_at"]:
        effect = told["decision_to_effect"]
        first = "nothing was changed" if effect is None else f"{seconds(effect)} from the decision to its first effect"
        yield f"  took {seconds(told['took'])}, to {when(told['ended_at'], day)}; {first}"
    if told["recoveries"]:
        yield f"  taken up again after {told['recoveries']} restarts"
    if told["steps"]:
        yield rows(("step", "state", "began", "took", "tries", "said"), [_step(row, day) for row in told["steps"]], 2)
        why = {step["name"]: step["why"] for step in (told["plan"] or {"steps": ()})["steps"]}
        yield from (f"  {plain(line)}" for row in told["steps"] if (line := _around(row, why.get(row["name"], ""))))
    if told["plan"] and told["state"] in ("proposed", "awaiting"):
        yield from planned(told["plan"])
    if told["afterwards"]:
        yield f"  afterwards: {_finding(told['afterwards'], day)}"


def _rests_on(told: Mapping[str, Json], day: datetime) -> Iterator[str]:
    for one in told["approvals"]:
        yield f"  {plain(one['what'])} {when(one['at'], day)}"
    if told["approved_by"] and not told["approvals"]:
        yield f"  approved by {plain(told['approved_by'])}, who asked for it" + (f", plan {told['plan']['digest'][:12]}" if told["plan"] else "")
    for one in told["evidence"]:
        yield f"  rests on {_finding(one, day)}"


def _finding(one: Mapping[str, Json], day: datetime) -> str:
    if one["watch"] is None:
        return f"finding {one['id']}, which is not kept any more"
    version = f" of version {plain(one['version'])}" if one["version"] else ""
    return f"finding {one['id']}{version}, {plain(one['watch'])} {one['status']} at {when(one['looked_at'], day)}: {plain(one['reason'])}"


def _step(row: Mapping[str, Json], day: datetime) -> list[Any]:
    began, lasted = when(row["intended_at"], day), took(row["intended_at"], row["ended_at"])
    return [row["name"], word(row["state"]), began, lasted, row["tries"], row["said"]]


def _around(row: Mapping[str, Json], why: str) -> str:
    """Why a step was there, what stood before it and what it left."""
    stood = f"{row['action']} stood at {value(row['before'])}" if row["before"] is not None else ""
    left = f"left {words(row['output'])}" if row["tries"] and row["output"] else f"found {words(row['output'])}" if row["output"] else ""
    said = "; ".join(filter(None, [why, stood, left]))
    return f"{row['name']}: {said}" if said else ""


# The ladder


def ladder(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "no runbook answers anything here, and none has run\n"
    return printed(*(_hanging(line) for n, one in enumerate(found) for line in (*([""] if n else []), *_rung(one))))


def _rung(one: Mapping[str, Json]) -> Iterator[Any]:
    yield Text.assemble((f"{plain(one['runbook'])} on {plain(one['service'])}", "bold"), f"  mode {one['mode']}")
    drill = one["drill"]
    yield f"  last drill  {_drill(drill)}"
    for counted in one["record"] or [None]:
        yield f"  record      {sentence(counted) if counted else 'it has not come so far that it would have acted'}"
    if one["judged"]:
        body = [[f"run {j['run']}", when(j["wanted_at"]), j["mode"], word(j["mark"]), _why(j)] for j in one["judged"]]
        yield rows(("run", "wanted", "mode", "was it right", "why"), body, 14)
    if one["acted"]:
        yield f"  acted       {', '.join(f'{state} {n}' for state, n in one['acted'].items())}"
    if one["declined"]:
        yield f"  declined    {one['declined']}: it looked, and saw that it would not help"
    if one["next"] is None:
        yield f"  next        nothing: it may act alone{'' if drill and drill['holds'] else ', once it is drilled'}"
    else:
        met, lacking = ([need["what"] for need in one["next"]["needs"] if need["met"] is there] for there in (True, False))
        yield f"  next        {one['next']['mode']}: {'it lacks ' + '; '.join(lacking) if lacking else 'nothing speaks against it'}"
        if met:
            yield f"              it has {'; '.join(met)}"


def _drill(one: Mapping[str, Json] | None) -> str:
    if one is None:
        return "none has succeeded"
    return f"run {one['run']}, {when(one['at'])}{'' if one['holds'] else ', too long ago for mode auto'}"


def _why(judged: Mapping[str, Json]) -> str:
    return f"{judged['why']} (finding {judged['finding']})" if judged["finding"] else str(judged["why"])
