"""How ready a service is, as JSON values: the score and what it rests on, what to do next, a gate for pipelines, and one question explained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.audit.answers import RULES, answers
from agent.audit.catalogue import SECTIONS, Item, catalogue
from agent.audit.known import Known
from agent.audit.scoring import LEVELS, Score, Scored, debt, fixes, ml_test_score, score, verdict
from agent.errors import ConfigError
from agent.model import Json, to_json
from agent.plugins import suggest

SEEN = ("pass", "partial", "fail")
GATE = re.compile(r"verdict|blockers|level=R[0-5]")
PLANNED = 5  # of what to do next


def readiness(known: Known) -> dict[str, Json]:
    """Everything the audit says of how ready a service is. What no rule answers, or nothing is attached for, is unknown and counts as nothing."""
    found = _score(known)
    word, why = verdict(found, intact=known.intact)
    points, band = ml_test_score(found)
    fresh = sum(one.state in SEEN for one in found.scored.values())
    least = min(found.sections.values())
    counted = f"evidence {fresh}/{len(found.scored)} fresh, {len(found.blockers)} blockers open, MTS-eq {points:g}"
    return {
        "headline": f"{found.final:g}/10 ({found.level}), {counted}",
        "verdict": word,
        "why": why,
        "final": found.final,
        "level": found.level,
        "coverage": found.coverage,
        "fresh": fresh,
        "answerable": sum(name in RULES for name in found.scored),
        "sections": [{"section": name, "points": points, "least": points == least} for name, points in found.sections.items()],
        "blockers": [_told(found.scored[name]) for name in found.blockers],
        "ml_test_score": {"points": points, "band": band},
        "items": [_told(one) for one in found.scored.values()],
        "plan": [{**_told(one), "earn": _earn(one.item, known.attached)} for one in _plan(found)],
        "debt": {name: round(value, 1) for name, value in debt(found).items()},
        "attached": sorted(known.attached),
        "ceiling": ceiling(known.attached),
        "next": _next(known.attached),
        "catalogue": {"version": catalogue().version, "digest": catalogue().digest},
    }


def _score(known: Known) -> Score:
    return score(catalogue(), answers(catalogue(), known), known.now, known.served)


def _told(one: Scored) -> dict[str, Json]:
    at = None if one.answer is None else to_json(one.answer.at)
    until = None if one.until_at is None else to_json(one.until_at)
    known = {"item": one.item.id, "question": one.item.question, "criticality": one.item.criticality}
    return {**known, "state": one.state, "points": one.points, "why": one.why, "at": at, "until_at": until}


def _plan(found: Score) -> Sequence[Scored]:
    """What to do first, of what a rule could see done: blockers, then what lifts the least section, then risk for effort."""
    ordered = (found.scored[fix.item.id] for fix in fixes(catalogue(), found))
    return [one for one in ordered if one.item.id in RULES and one.points < RULES[one.item.id].best][:PLANNED]


def _earn(item: Item, attached: frozenset[str]) -> str:
    """What to do for a better answer, what to attach before that included."""
    first = "" if item.within(attached) else f"attach {_wanted(item)}; "
    return first + RULES[item.id].earn


def _wanted(item: Item) -> str:
    return " or ".join(" and ".join(sorted(need)) for need in item.needs)


def ceiling(attached: frozenset[str]) -> float:
    """The best score that can be had from what is attached, by the rules there are: half where a rule cannot see all of it."""
    can = [(item.section, RULES[name].best) for name, item in catalogue().items.items() if name in RULES and item.within(attached)]
    return min(sum(best for section, best in can if section == one) for one in SECTIONS)


def _next(attached: frozenset[str]) -> Json:
    """The source to attach next: it lifts the ceiling most, then answers most; None where none answers more."""
    now = _within(attached)
    sources = [source for source in ("server", "registry", "tables", "metrics", "code") if source not in attached]
    tried = [(ceiling(attached | {source}), _within(attached | {source}) - now, source) for source in sources]
    best = max((one for one in tried if one[1]), default=None)
    return None if best is None else {"source": best[2], "ceiling": best[0], "more": best[1]}


def _within(attached: frozenset[str]) -> int:
    return sum(item.within(attached) for name, item in catalogue().items.items() if name in RULES)


# Gates


def gate(wish: str, told: Sequence[Mapping[str, Json]]) -> int:
    """0: every service meets it. 1: one does not, whatever else may turn up. 3: what is not known decides. No service: 3."""
    codes = [_gate(wish, one) for one in told]
    return 1 if 1 in codes else 3 if 3 in codes or not codes else 0


def _gate(wish: str, told: Mapping[str, Json]) -> int:
    if wish == "verdict":
        return {"READY": 0, "UNVERIFIED": 3}.get(told["verdict"], 1)
    if wish == "blockers":
        seen = any(one["state"] in SEEN for one in told["blockers"])
        return 1 if seen else 3 if told["blockers"] else 0
    wanted = wish.partition("=")[2]
    if told["level"] >= wanted:
        return 0
    return 1 if _at_best(told) < wanted else 3


def _at_best(told: Mapping[str, Json]) -> str:
    """The level if everything that is not known turned out well."""
    sections = dict.fromkeys(SECTIONS, 0.0)
    for one in told["items"]:
        sections[one["item"].partition("-")[0]] += one["points"] if one["state"] in SEEN else 1.0
    return next(name for most, name in LEVELS if min(sections.values()) <= most)


# One question


def explained(name: str, services: Sequence[Known]) -> dict[str, Json]:
    """One question: how it is answered, what counts as what, what is known of it in each service now, and how to earn more. ConfigError: no such."""
    item = catalogue().items.get(name.upper())
    if item is None:
        raise ConfigError(f"no question '{name}'{suggest(name.upper(), catalogue().items)}; there are DATA-01 to TEAM-10, ten a section")
    one = RULES.get(item.id)
    return {
        **{key: to_json(getattr(item, key)) for key in ("id", "question", "criticality", "mode", "evidence", "fresh", "versioned", "failures")},
        "counts": {"pass": item.passes, "partial": item.partial, "fail": item.fails},
        "needs": [sorted(need) for need in item.needs],
        "rule": one.reads if one else None,
        "not_seen": one.lacks if one else None,
        "earn": one.earn if one else f"no rule answers it yet, so that it stays unknown; what would is: {item.evidence}",
        "now": [_now(item, known) for known in services],
    }


def _now(item: Item, known: Known) -> dict[str, Json]:
    attach = None if item.within(known.attached) else _wanted(item)
    return {"service": known.service.name, **_told(_score(known).scored[item.id]), "attach": attach}


def explanation(told: Mapping[str, Json]) -> str:
    """One question for a terminal."""
    holds = f"{told['fresh']} days" + (", and until another version is served" if told["versioned"] else "")
    lines = [f"{told['id']} ({told['criticality']}): {told['question']}", ""]
    lines += [f"rule      {told['rule'] or 'none yet: it stays unknown'}", *([f"not seen  {told['not_seen']}"] if told["not_seen"] else [])]
    lines += [f"{word:9} {told['counts'][word]}" for word in ("pass", "partial", "fail")] + [f"holds     {holds}", ""]
    for one in told["now"]:
        attach = f"; attach {one['attach']}" if one["attach"] else ""
        lines.append(f"{one['service']}: {one['state']}, {one['points']:g} of 1: {one['why']}{attach}")
    return "\n".join([*lines, "", f"To earn it: {told['earn']}", ""])
