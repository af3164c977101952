"""How ready a service has been, from the audits that were kept: budgets, repairs, comparisons.

Pure functions of what was kept. An audit speaks until the next one and for two days at most: what nobody audited is neither good nor bad, it is
missing, and how much of the quarter is known is told with every figure. After the error budgets of the SRE workbook (Beyer et al. 2018, chapter 2),
with days below a level in place of failed requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from agent.audit.catalogue import SECTIONS, catalogue
from agent.audit.comparing import changes
from agent.audit.gates import SEEN
from agent.audit.scoring import LEVELS
from agent.model import Json, spell

QUARTER, HOLDS = timedelta(days=90), timedelta(days=2)
DAY = timedelta(days=1)
TARGET = "R4"
BELOW = next(most for most, name in reversed(LEVELS) if name < TARGET)  # points up to which a section is below the target
SECTION_DAYS, BLOCKER_DAYS, UNSEEN = 14.0, 2.0, 0.05  # what a quarter allows
REPEATED = 2  # times that a question has to fail to be a repeat offender

Kept = Mapping[str, Json]
Span = tuple[Kept, float]  # an audit and the days it speaks for


def trend(service: str, before: Sequence[Kept], now: Kept) -> dict[str, Json]:
    """What the kept audits, oldest first, and the one of `now` say of the 90 days up to it. Those of later than `now` are left out."""
    as_of = _at(now)
    told = [one for one in before if as_of - QUARTER - HOLDS <= _at(one) < as_of]
    held = spans(told, as_of)
    seen = sum(days for _, days in held)
    return {
        "audits": len(told),
        "seen_days": seen,
        "of_days": QUARTER / DAY,
        "readiness": readiness_budget(held),
        "evidence": evidence_budget(held, now),
        "repairs": repairs([*told, now]),
        "comparisons": comparisons(service, told, now),
    }


def _at(one: Kept) -> datetime:
    return datetime.fromisoformat(one["as_of"])


def spans(kept: Sequence[Kept], until: datetime) -> list[Span]:
    """Each audit with the days that it speaks for, within the 90 days up to `until`."""
    said = [(at, min(later, at + HOLDS)) for at, later in pairwise([*map(_at, kept), until])]
    return [(one, max(0.0, (end - max(at, until - QUARTER)) / DAY)) for one, (at, end) in zip(kept, said, strict=True)]


# Budgets


def readiness_budget(held: Sequence[Span]) -> list[dict[str, Json]]:
    """The days that each section was below the target level, and each blocker not wholly met; the most used first."""
    sections = [_budget(name, sum(days for one, days in held if one["sections"][name] <= BELOW), SECTION_DAYS) for name in SECTIONS]
    blockers = [name for name, item in catalogue().items.items() if item.criticality == "blocker"]
    opened = [_budget(name, sum(days for one, days in held if _short(one, name)), BLOCKER_DAYS) for name in blockers]
    return sorted([*sections, *opened], key=lambda one: -one["used"])


def _budget(name: str, days: float, allowed: float) -> dict[str, Json]:
    return {"of": name, "days": days, "allowed_days": allowed, "used": days / allowed, "spent": days > allowed}


def _short(one: Kept, name: str) -> bool:
    return any(item["item"] == name and item["state"] != "n/a" and item["points"] < 1 for item in one["items"])


def evidence_budget(held: Sequence[Span], now: Kept) -> dict[str, Json]:
    """The days of questions that were stale or unknown: their share of what was audited, and of what the quarter allows all that are asked now."""
    lost = sum(days * sum(item["state"] in ("stale", "unknown") for item in one["items"]) for one, days in held)
    asked = sum(days * _asked(one) for one, days in held)
    used = lost / (UNSEEN * _asked(now) * (QUARTER / DAY)) if _asked(now) else 0.0
    return {"item_days": lost, "share": lost / asked if asked else None, "allowed_share": UNSEEN, "used": used, "spent": used > 1}


def _asked(one: Kept) -> int:
    return sum(item["state"] != "n/a" for item in one["items"])


def used(told: Mapping[str, Json]) -> float:
    """The most that any of the budgets is used, as a share; above 1 it is spent."""
    return float(max([one["used"] for one in told["readiness"]] + [told["evidence"]["used"]]))


# Repairs


def repairs(told: Sequence[Kept]) -> list[dict[str, Json]]:
    """Every question that failed: how often, how long until it was mended, since when it fails now; who fails again and again comes first.

    It fails from the audit that saw it fail until one that sees it pass, wholly or in part: what is not seen is not mended.
    """
    found = []
    for name in dict.fromkeys(item["item"] for one in told for item in one["items"]):
        closed, since = _episodes((_at(one), _state(one, name)) for one in told)
        if closed or since:
            mean = sum(closed) / len(closed) if closed else None
            found.append({"item": name, "times": len(closed) + bool(since), "mean_days": mean, "since": since.isoformat() if since else None})
    return sorted(found, key=lambda one: (-one["times"], -(one["mean_days"] or 0.0), one["item"]))


def _state(one: Kept, name: str) -> str:
    return next((item["state"] for item in one["items"] if item["item"] == name), "unknown")


def _episodes(states: Iterator[tuple[datetime, str]]) -> tuple[list[float], datetime | None]:
    """The days of each time it failed and was mended, and since when it fails now."""
    closed: list[float] = []
    since: datetime | None = None
    for at, state in states:
        if state == "fail":
            since = since or at
        elif since and state in (*SEEN, "n/a"):
            closed.append((at - since) / DAY)
            since = None
    return closed, since


# Comparisons


def comparisons(service: str, told: Sequence[Kept], now: Kept) -> dict[str, Json]:
    """The last audit, the last that was READY, and the last of the version that is served; None where the quarter has none."""
    last = next(reversed(told), None)
    ready = next((one for one in reversed(told) if one["verdict"] == "READY"), None)
    same = next((one for one in reversed(told) if now["served"] is not None and one["served"] == now["served"]), None)
    return {"last": _compared(service, last, now), "last_ready": _compared(service, ready, now), "same_version": _compared(service, same, now)}


def _compared(service: str, was: Kept | None, now: Kept) -> dict[str, Json] | None:
    if was is None:
        return None
    moved = changes(was, now, service, was["as_of"], now["as_of"])["items"]
    both = [one for one in moved if one["state"] != "criteria-changed" and one["before"] and one["now"]]
    gained = sum(one["now"]["points"] - one["before"]["points"] for one in both)
    return {
        **{word: was[word] for word in ("as_of", "final", "level", "verdict", "served")},
        "arrow": "up" if gained > 0 else "down" if gained < 0 else "level",
        "worse": [one["item"] for one in moved if one["state"] in ("regressed", "went-stale", "absent")],
        "better": [one["item"] for one in moved if one["state"] in ("improved", "new")],
    }


# In words


def lines(told: Mapping[str, Json] | None) -> list[str]:
    """The trend as sentences, for a terminal and the page."""
    if told is None:
        return []
    if not told["audits"]:
        return ["nothing is known of the 90 days before: no audit of them was kept; `audit:` in the configuration keeps one daily"]
    known = f"{_length(told['seen_days'])} of {told['of_days']:g} d"
    return [
        f"known: {told['audits']} kept {'audit' if told['audits'] == 1 else 'audits'}, for {known}",
        f"readiness budget: {_readiness(told['readiness'])}",
        f"evidence budget: {_evidence(told['evidence'])}",
        *(_repair(one) for one in told["repairs"][:5]),
        *(_comparison(word, told["comparisons"][key]) for word, key in COMPARED if told["comparisons"][key]),
    ]


COMPARED = (("the last audit", "last"), ("the last that was READY", "last_ready"), ("the last of this version", "same_version"))


def _readiness(budgets: Sequence[Mapping[str, Json]]) -> str:
    some = [one for one in budgets if one["days"]][:5]
    said = [f"{one['of']} {'SPENT, ' if one['spent'] else ''}{_length(one['days'])} of {one['allowed_days']:g} d" for one in some]
    return "; ".join(said) or "nothing used"


def _evidence(one: Mapping[str, Json]) -> str:
    allowed = f"of what was asked was stale or unknown, {one['allowed_share']:.0%} is allowed"
    seen = "nothing known" if one["share"] is None else f"{one['share']:.1%} {allowed}"
    return f"{seen}; {'SPENT, ' if one['spent'] else ''}{one['used']:.0%} of the quarter's used"


def _repair(one: Mapping[str, Json]) -> str:
    again = "repeat offender: " if one["times"] >= REPEATED else ""
    mended = "" if one["mean_days"] is None else f", mended in {_length(one['mean_days'])} on average"
    return f"{again}{one['item']} failed {_times(one['times'])}{mended}" + (f", fails since {one['since'][:16]}Z" if one["since"] else "")


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def _comparison(word: str, one: Mapping[str, Json]) -> str:
    worse = f"; worse: {', '.join(one['worse'][:8])}" if one["worse"] else "; nothing worse"
    return f"{word} ({one['as_of'][:16]}Z): {one['final']:g} ({one['level']}), {one['verdict']}; {one['arrow']} since{worse}"


def _length(days: float) -> str:
    """Days as people say them, to the minute: "3m", "11d4h"."""
    minutes = round(days * 24 * 60)
    return spell(timedelta(minutes=minutes)) if minutes else "0 d" if not days else "under 1m"
