"""How ready a service is, as JSON values: the score and what it rests on, and what to do next."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from agent import objectives
from agent.audit import attested
from agent.audit.answers import RULES, answers
from agent.audit.catalogue import ALWAYS, SECTIONS, SOURCES, Item, catalogue
from agent.audit.gates import SEEN
from agent.audit.hurt import Hurt, hurt, interest_first
from agent.audit.known import Known
from agent.audit.questions import questions
from agent.audit.scoring import Answer, Evidence, Fix, Score, Scored, debt, fixes, ml_test_score, score, verdict
from agent.model import Json, to_json

COMMAND = re.compile(r"watchkeeper (?:[a-z][\w.-]* ){1,3}(?:(?:[A-Z]+\b|--[a-z-]+(?:[ =][\w.:/-]+)?) ?)+|watchkeeper [a-z][\w-]*(?: [a-z][\w-]*)?")
LOOKS = ("audit", "baseline", "check", "compare", "contract", "drift", "eval", "replay", "status", "validate")  # change nothing of a service
MOVES = ("drill", "load", "runbook")  # reach what is live: these want a person's yes, or may be heard by users


@dataclass(frozen=True, slots=True)
class Beside:
    """What counts beside the answers: by item `waivers` (by, until, reason) and `attestations` (by, until, note); `budgets`, as they are told."""

    service: str
    as_of: datetime
    served: str | None = None
    attached: frozenset[str] = frozenset()
    intact: bool = True
    hurt: Hurt = field(default_factory=Hurt)
    questions: Sequence[Mapping[str, Json]] = ()
    waivers: Mapping[str, Json] = field(default_factory=dict)
    attestations: Mapping[str, Json] = field(default_factory=dict)
    budgets: Sequence[Mapping[str, Json]] = ()
    apart: Mapping[str, str] = field(default_factory=dict)  # by item, why it does not apply

    @property
    def spent(self) -> bool:
        return any(one["spent"] for one in self.budgets)


def readiness(known: Known) -> dict[str, Json]:
    """Everything the audit says of how ready a service is. What no rule answers, or nothing is attached for, is unknown and counts as nothing."""
    return result(answers(catalogue(), known), beside(known))


def beside(known: Known) -> Beside:
    """What counts beside the answers."""
    said = attested.words(known.service, known.ledger, known.now)
    return Beside(
        known.service.name,
        known.now,
        known.served,
        known.attached,
        known.intact,
        hurt(known),
        questions(known),
        attested.by_item(said, "waived"),
        attested.by_item(said, "attested"),
        objectives.told(known.ledger, known.service, known.now),
        attested.apart(said),
    )


def result(given: Mapping[str, Answer], known: Beside) -> dict[str, Json]:
    """The answers scored, and all that follows from them. A pure function: what was stored is scored again by the same."""
    found = score(catalogue(), given, known.as_of, known.served, known.apart)
    word, why = verdict(found, intact=known.intact, spent=known.spent, planned=set(known.waivers))
    points, band = ml_test_score(found)
    fresh = sum(one.state in SEEN for one in found.scored.values())
    least = min(found.sections.values())
    plan = [_fix(fix, known, found.final) for fix in _plan(found, known)]
    doing = {str(one["item"]): one for one in plan}
    counted = f"evidence {fresh}/{len(found.scored)} fresh, {len(found.blockers)} blockers open, MTS-eq {points:g}"
    return {
        "headline": ", ".join([f"{found.final:g}/10 ({found.level})", counted, *_left(known.budgets)]),
        "verdict": word,
        "why": why,
        "final": found.final,
        "level": found.level,
        "coverage": found.coverage,
        "fresh": fresh,
        "answerable": sum(name in RULES for name in found.scored),
        "served": known.served,
        "sections": [{"section": name, "points": points, "least": points == least} for name, points in found.sections.items()],
        "blockers": [told(found.scored[name]) for name in found.blockers],
        "ml_test_score": {"points": points, "band": band},
        "items": [_whole(one, known, doing.get(one.item.id)) for one in found.scored.values()],
        "plan": plan,
        "steps": _steps(plan, found.final),
        "debt": _debt(found, known.hurt),
        "elsewhere_hours_a_week": known.hurt.elsewhere,
        "hurt": dict(known.hurt.incidents),
        "questions": [dict(one) for one in known.questions],
        "budgets": [dict(one) for one in known.budgets],
        "attached": sorted(known.attached),
        "sources": [_source(name, found, known.attached) for name in SOURCES],
        "ceiling": ceiling(known.attached),
        "next": _next(known.attached),
        "catalogue": {"version": catalogue().version, "digest": catalogue().digest},
        "changes": None,
        "trend": None,
    }


def rescored(kept: Mapping[str, Json], service: str, as_of: datetime) -> dict[str, Json]:
    """A stored result scored again as of another moment, by the questions and rules of today: what it rests on is taken as it stands there."""
    answered = {one["item"]: _answer(one) for one in kept["items"] if one["item"] in catalogue().items}
    given = {name: one for name, one in answered.items() if one is not None}
    waivers, people = ({one["item"]: one[what] for one in kept["items"] if one.get(what)} for what in ("waiver", "attestation"))
    apart = {one["item"]: one["why"] for one in kept["items"] if one["state"] == "n/a"}
    cost = {name: one["hours_a_week"] for name, one in kept["debt"].items()}
    past = Hurt(kept["hurt"], cost, kept["elsewhere_hours_a_week"])
    attached = frozenset(kept["attached"])
    return result(given, Beside(service, as_of, kept["served"], attached, True, past, kept["questions"], waivers, people, kept["budgets"], apart))


def _answer(one: Mapping[str, Json]) -> Answer | None:
    said = one.get("answer")
    if said is None:
        return None
    rests = tuple(Evidence(**{**given, "at": datetime.fromisoformat(given["at"])}) for given in one["evidence"])
    return Answer(**{**said, "at": datetime.fromisoformat(said["at"])}, evidence=rests)


def scored_now(known: Known) -> Score:
    said = attested.words(known.service, known.ledger, known.now)
    return score(catalogue(), answers(catalogue(), known), known.now, known.served, attested.apart(said))


def _left(budgets: Sequence[Mapping[str, Json]]) -> list[str]:
    return [f"budget {max(0.0, 1 - max(one['used'] for one in budgets)):.0%} left"] if budgets else []


# Items


def told(one: Scored) -> dict[str, Json]:
    at = None if one.answer is None else to_json(one.answer.at)
    until = None if one.until_at is None else to_json(one.until_at)
    known = {"item": one.item.id, "question": one.item.question, "criticality": one.item.criticality}
    return {**known, "state": one.state, "points": one.points, "why": one.why, "at": at, "until_at": until}


def _whole(one: Scored, known: Beside, fix: Json) -> dict[str, Json]:
    """A question with all that is known of it."""
    item, answer = one.item, one.answer
    held = None if answer is None else {key: to_json(getattr(answer, key)) for key in ("said", "at", "repeated", "version", "observed", "attested")}
    return {
        **told(one),
        "mode": item.mode,
        "answer": held,
        "expected": {"pass": item.passes, "partial": item.partial, "fail": item.fails},
        "best": RULES[item.id].best if item.id in RULES else 0.0,
        "earn": RULES[item.id].earn.replace("SERVICE", known.service) if item.id in RULES else None,
        "fresh_days": item.fresh,
        "versioned": item.versioned,
        "criteria": criteria(item.id),
        "evidence": [] if answer is None else [to_json(rests) for rests in answer.evidence],
        "attestation": known.attestations.get(item.id),
        "waiver": known.waivers.get(item.id),
        "fix": fix,
        "maps": {key: list(getattr(item, key)) for key in ("failures", "ml_test_score", "debt", "ai_act", "nist")},
    }


@cache
def criteria(name: str) -> str:
    """What a question is held to, as 16 digits: they differ once the question or its rule does, and then two answers cannot be compared."""
    item, one = catalogue().items[name], RULES.get(name)
    asked = [to_json(getattr(item, key)) for key in ("question", "criticality", "passes", "partial", "fails", "fresh", "versioned")]
    ruled = [inspect.getsource(one.ask), one.lacks, one.accuses] if one else []
    return hashlib.sha256(repr([*asked, *ruled]).encode()).hexdigest()[:16]


# What to do


def _plan(found: Score, known: Beside) -> Sequence[Fix]:
    """What a rule could see done: blockers, then what lifts the least section, then risk for effort."""
    best = {name: RULES[name].best if name in RULES else 0.0 for name in found.scored}
    return fixes(catalogue(), found, known.hurt.incidents, best)


def _fix(fix: Fix, known: Beside, now: float) -> dict[str, Json]:
    earn = _earn(fix.item, known.attached)
    commands = [one.strip().replace("SERVICE", known.service) for one in COMMAND.findall(earn)]
    about = {"item": fix.item.id, "question": fix.item.question, "criticality": fix.item.criticality, "why": fix.why, "effort": fix.item.effort}
    return {**about, "gain": fix.gain, "final": fix.final, "lifts": fix.final - now, "earn": earn, "commands": commands, "kind": _kind(commands)}


def _kind(commands: Sequence[str]) -> str:
    """safe: the agent can do it now and changes nothing of a service; live: it can, and reaches what is live; else it is for people to set up."""
    verbs = {one.split()[1] for one in commands}
    return "live" if verbs & set(MOVES) else "safe" if verbs & set(LOOKS) else "set up"


def _steps(plan: Sequence[Mapping[str, Json]], now: float) -> list[dict[str, Json]]:
    """How many of the plan, from its beginning, lift the score, and to what: "do these four"."""
    made: list[dict[str, Json]] = []
    for n, one in enumerate(plan, 1):
        if one["final"] > (made[-1]["final"] if made else now):
            made.append({"do": n, "final": one["final"]})
    return made


def _earn(item: Item, attached: frozenset[str]) -> str:
    """What to do for a better answer, what to attach before that included."""
    first = "" if item.within(attached) else f"attach {wanted(item)}; "
    return first + RULES[item.id].earn


def wanted(item: Item) -> str:
    return " or ".join(" and ".join(sorted(need)) for need in item.needs)


# Debt and sources


def _debt(found: Score, past: Hurt) -> dict[str, Json]:
    """Each type of debt: its index, and what it cost; the one to pay down first has the first `rank`."""
    index = debt(found)
    order = interest_first(index, past)
    return {
        kind: {"index": round(value, 1), "hours_a_week": past.interest.get(kind, 0.0), "rank": order.index(kind) + 1} for kind, value in index.items()
    }


def _source(name: str, found: Score, attached: frozenset[str]) -> dict[str, Json]:
    """How many questions a source is wanted for, and how many of those have fresh evidence."""
    about = [one for one in found.scored.values() if any(name in need for need in one.item.needs)]
    fresh = sum(one.state in SEEN for one in about)
    return {"source": name, "attached": name in attached | ALWAYS, "questions": len(about), "fresh": fresh}


def ceiling(attached: frozenset[str]) -> float:
    """The best score that can be had from what is attached, by the rules there are: half where a rule cannot see all of it."""
    can = [(item.section, RULES[name].best) for name, item in catalogue().items.items() if name in RULES and item.within(attached)]
    return min(sum(best for section, best in can if section == one) for one in SECTIONS)


def _next(attached: frozenset[str]) -> Json:
    """The source to attach next: it lifts the ceiling most, then answers most; None where none answers more."""
    now = _within(attached)
    sources = [source for source in SOURCES if source not in attached | ALWAYS]
    tried = [(ceiling(attached | {source}), _within(attached | {source}) - now, source) for source in sources]
    best = max((one for one in tried if one[1]), default=None)
    return None if best is None else {"source": best[2], "ceiling": best[0], "more": best[1]}


def _within(attached: frozenset[str]) -> int:
    return sum(item.within(attached) for name, item in catalogue().items.items() if name in RULES)
