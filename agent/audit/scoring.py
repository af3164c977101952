"""From what each question came to, to what the service comes to. Pure functions of stored answers: the same answers always score the same.

The scale is that of the ML Test Score (Breck et al. 2017): 0.5 for what was shown once or by hand, 1 for what is shown again and again; sections add
up; the least of them is the score. Two things are ours: every answer has an age, after which it counts less and then nothing; and what is not known
counts as nothing and stays in the sum, so that losing sight of a fault never makes the score better.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agent.audit.catalogue import DEBTS, ML_TEST_SCORE, OTHER_DEBTS, SECTIONS, Catalogue, Item
from agent.model import Json

Said = Literal["pass", "partial", "fail"]
State = Literal["pass", "partial", "fail", "stale", "unknown", "n/a"]
Verdict = Literal["READY", "CONDITIONAL", "NOT-READY", "UNVERIFIED"]
LEVELS = ((0.0, "R0"), (1.5, "R1"), (3.0, "R2"), (4.5, "R3"), (7.0, "R4"), (10.0, "R5"))  # up to and with
BANDS = (
    (0.0, "a research project rather than a productionised system"),
    (1.0, "not totally untested, with serious holes possible"),
    (2.0, "a first pass at basic productionisation"),
    (3.0, "reasonably tested, and more could be automated"),
    (5.0, "strong, of a grade for what is critical"),
    (7.0, "exceptional"),
)
SEEN = 0.9  # of the items, without fresh evidence of which nothing is READY
BLIND = 0.6  # below which nothing is judged at all
EFFORTS = {"S": 1.0, "M": 3.0, "L": 8.0}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing an answer rests on, so that it can be found, checked and made again.

    `kind`: finding, run, event, incident, config, attestation; `source` as in the catalogue; `vantage`: independent where the agent does not own what
    was read, self where it reads its own record; `collector`: the check, runbook or rule that made it, and with what (`query`); `locator`: where it
    is ("finding 812", "run 7"); `digest`: sha256 of its body; `link`: its place in the chain of evidence.
    """

    kind: str
    source: str
    vantage: Literal["independent", "self"]
    at: datetime
    collector: str
    query: str
    locator: str
    digest: str
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question came to: by evidence made at `at` about a version, again and again (`repeated`) or once; a drill counts as repeated."""

    said: Said
    at: datetime
    repeated: bool = True
    version: str | None = None
    observed: str = ""
    attested: bool = False  # by a person alone, and not borne out by anything seen
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """One question's state and points as of a moment, why, and when its evidence runs out."""

    item: Item
    state: State
    points: float
    why: str
    until_at: datetime | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What it all comes to."""

    scored: Mapping[str, Scored]
    sections: Mapping[str, float]
    coverage: float  # the share of questions with fresh evidence, whatever it says

    @property
    def asked(self) -> list[Scored]:
        """The questions that apply."""
        return [one for one in self.scored.values() if one.state != "n/a"]

    @property
    def final(self) -> float:
        """The least of the sections: a model is as ready as its weakest part."""
        return min(self.sections.values())

    @property
    def level(self) -> str:
        return next(name for most, name in LEVELS if self.final <= most)

    @property
    def blockers(self) -> tuple[str, ...]:
        """Blockers that are not wholly met, the worst first."""
        short = [one for one in self.asked if one.item.criticality == "blocker" and one.points < 1]
        return tuple(one.item.id for one in sorted(short, key=lambda one: (one.points, one.item.id)))


def scored(item: Item, answer: Answer | None, as_of: datetime, served: str | None) -> Scored:
    """1 for a pass that is shown again and again; 0.5 for partial, for once, by hand or by a person's word, and for stale; 0 for all else.

    Stale is older than `fresh` days, up to twice that; older, or about another version where that matters, is unknown.
    """
    if answer is None or answer.at > as_of:
        return Scored(item, "unknown", 0.0, "nothing has answered it")
    fresh = timedelta(days=item.fresh)
    until, age = answer.at + fresh, as_of - answer.at
    if item.versioned and served is not None and answer.version not in (None, served):
        return Scored(item, "unknown", 0.0, f"what is known is of version {answer.version}, and {served} is served", until, answer)
    if age > 2 * fresh:
        return Scored(item, "unknown", 0.0, f"the last answer is {age.days} days old, and holds for {item.fresh}", until, answer)
    why = answer.observed or answer.said
    points = {"pass": 1.0, "partial": 0.5, "fail": 0.0}[answer.said]
    if answer.said == "pass" and (answer.attested or not answer.repeated):
        points = 0.5
    if age > fresh:
        return Scored(
            item, "stale", min(points, 0.5), f"{answer.observed or answer.said}; {age.days} days ago, and it holds for {item.fresh}", until, answer
        )
    why = answer.observed or answer.said
    by = "; by a person's word alone" if answer.attested else "" if answer.repeated else "; shown once"
    return Scored(item, answer.said, points, why + by, until, answer)


def score(catalogue: Catalogue, answers: Mapping[str, Answer], as_of: datetime, served: str | None = None, apart: Mapping[str, str] = {}) -> Score:
    """Every question scored, the sections added up, and how much of it is seen.

    `apart` are those that do not apply, and why: neither counted nor missed, and the rest of their section is scaled up to ten.
    """
    found = {name: scored(item, answers.get(name), as_of, served) for name, item in catalogue.items.items() if name not in apart}
    seen = sum(one.state in ("pass", "partial", "fail") for one in found.values()) / max(len(found), 1)
    sections = _sections(catalogue, {name: one.points for name, one in found.items()})
    whole = {name: found.get(name) or Scored(item, "n/a", 0.0, apart.get(name, "")) for name, item in catalogue.items.items()}
    return Score(whole, sections, seen)


def _sections(catalogue: Catalogue, points: Mapping[str, float]) -> dict[str, float]:
    """What each section comes to by the points of its questions that apply, scaled to as many as it has."""
    made = {}
    for section in SECTIONS:
        names = [name for name, item in catalogue.items.items() if item.section == section]
        asked = [points[name] for name in names if name in points]
        made[section] = sum(asked) if len(asked) == len(names) else sum(asked) * len(names) / max(len(asked), 1)
    return made


def verdict(found: Score, *, intact: bool = True, spent: bool = False, planned: Collection[str] = ()) -> tuple[Verdict, str]:
    """READY, CONDITIONAL, NOT-READY, or UNVERIFIED where too little is seen to judge; and why.

    `intact`: the record holds. `spent`: an error budget is used up. `planned`: blockers whose gap has an owner and a day.
    """
    if found.coverage < BLIND:
        return "UNVERIFIED", f"only {found.coverage:.0%} of the questions have fresh evidence; below {BLIND:.0%} nothing is judged"
    reached = int(found.level[1:])
    if not found.blockers and reached >= 4 and found.coverage >= SEEN and intact and not spent:
        return "READY", f"every blocker is met, {found.level}, {found.coverage:.0%} seen"
    lacking = [
        *(["the record does not hold"] if not intact else []),
        *(["an error budget is used up"] if spent else []),
        *([f"{name} ({found.scored[name].why})" for name in found.blockers]),
        *([f"{found.coverage:.0%} of the questions are seen, and {SEEN:.0%} are wanted"] if found.coverage < SEEN else []),
        *([f"{found.level} is below R4"] if reached < 4 else []),
    ]
    half = all(found.scored[name].points >= 0.5 and name in planned for name in found.blockers)
    return ("CONDITIONAL" if half and reached >= 3 and intact else "NOT-READY"), "; ".join(lacking)


def ml_test_score(found: Score) -> tuple[float, str]:
    """The same evidence on the scale of 2017: each of its 28 tests counts as the least of the questions that stand for it; and its band."""
    tests = {test: [one.points for one in found.asked if test in one.item.ml_test_score] for test in ML_TEST_SCORE}
    points = {test: min(values) if values else 0.0 for test, values in tests.items()}
    final = min(sum(points[f"{section}{number}"] for number in range(1, 8)) for section in "DMIN")
    return final, next(band for most, band in BANDS if final <= most)


def ceiling(catalogue: Catalogue, attached: frozenset[str]) -> float:
    """The best score that can be had with what is attached: the least section, were every question that can be asked answered well."""
    can = [item for item in catalogue.items.values() if item.within(attached)]
    return float(min(sum(item.section == section for item in can) for section in SECTIONS))


def next_source(catalogue: Catalogue, attached: frozenset[str]) -> tuple[str, float, int] | None:
    """What to attach next: the source that lifts the ceiling most, then answers most: (its name, the ceiling then, how many more answers)."""
    now = sum(item.within(attached) for item in catalogue.items.values())
    tried = []
    for source in ("server", "registry", "tables", "metrics", "code"):
        if source not in attached:
            more = attached | {source}
            tried.append((ceiling(catalogue, more), sum(item.within(more) for item in catalogue.items.values()) - now, source))
    best = max(tried, default=None)
    return None if best is None or best[1] == 0 else (best[2], best[0], best[1])


def debt(found: Score) -> Mapping[str, float]:
    """The index of each type of debt (Sculley et al. 2015), 0 to 100: the weight of what is not met, of all the weight that stands for it.

    A question that stands for several types counts for each by its part.
    """
    made: dict[str, float] = {}
    for kind in (*DEBTS, *OTHER_DEBTS):
        about = [(one.item.weight / len(one.item.debt), one.points) for one in found.asked if kind in one.item.debt]
        most = sum(weight for weight, _ in about)
        made[kind] = 100 * sum(weight * (1 - points) for weight, points in about) / most if most else 0.0
    return made


@dataclass(frozen=True, slots=True)
class Fix:
    """One thing to put right: which question, why now, and what the score would be with this and all before it done."""

    item: Item
    why: str
    gain: float
    final: float


def fixes(catalogue: Catalogue, found: Score, incidents: Mapping[str, int] = {}, best: Mapping[str, float] | None = None) -> Sequence[Fix]:
    """What to do in which order: blockers, then what lifts the least section, then risk taken away for the effort.

    `incidents` are those of 90 days by failure mode: what has hurt weighs more, up to three times. `best`: the most points that each question can
    be seen to earn, where that is less than 1; what can earn no more is not among what to do.
    """
    points = {one.item.id: one.points for one in found.asked}
    most = dict.fromkeys(points, 1.0) | {name: value for name, value in (best or {}).items() if name in points}
    left = [one for one in found.asked if one.points < most[one.item.id]]
    made: list[Fix] = []
    while left:
        sections = _sections(catalogue, points)
        least = min(sections.values())
        low = {section for section, value in sections.items() if value == least}
        first = max(left, key=lambda one: (one.item.criticality == "blocker", one.item.section in low, _worth(one, incidents), one.item.id))
        left.remove(first)
        gain = most[first.item.id] - first.points
        points[first.item.id] += gain
        made.append(Fix(first.item, first.why, gain, min(_sections(catalogue, points).values())))
    return made


def _worth(one: Scored, incidents: Mapping[str, int]) -> float:
    from math import log2

    hurt = min(3.0, 1 + log2(1 + sum(incidents.get(failure, 0) for failure in one.item.failures)))
    return one.item.weight * (1 - one.points) * hurt / EFFORTS[one.item.effort]


def to_json(found: Score) -> Json:
    """The score as plain values."""
    return {
        "final": found.final,
        "level": found.level,
        "coverage": found.coverage,
        "sections": dict(found.sections),
        "blockers": list(found.blockers),
        "items": {name: {"state": one.state, "points": one.points, "why": one.why} for name, one in found.scored.items()},
        "debt": dict(debt(found)),
    }
