"""Whether two paths give one value for a feature, what is wrong where they do not, and what all the wrong ones have in common."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Literal

from agent import UTC, Json, Kind, Reading
from agent.stats import clopper_pearson

Cause = Literal["missing", "null", "unexpected", "type", "value", "expired"]
COMMON = 5  # differing values from which a pattern among them is told
MOST = 0.95  # the share of them that must follow it
SAME = 1e-3  # the part of a difference that a pattern may leave over
NOT_NUMBERS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}  # as JSON that has only numbers writes the others


@dataclass(frozen=True, slots=True)
class Near:
    """How far apart two fractions may be: at most atol + rtol * |expected|. Whole numbers, text and booleans are compared exactly."""

    rtol: float
    atol: float


def wrong(expected: Json, given: Json, near: Near) -> Cause | None:
    """What about a given value is not as expected; None when nothing is. Null equals null."""
    if expected is None or given is None:
        return None if expected is given else "unexpected" if expected is None else "null"
    if isinstance(expected, (str, list)) and isinstance(given, (str, list)) and expected != given:
        expected, given = _unfolded(expected), _unfolded(given)
    if isinstance(expected, list) and isinstance(given, list):
        causes = [wrong(one, other, near) for one, other in zip(expected, given, strict=False)]
        return next((cause for cause in causes if cause), None if len(expected) == len(given) else "value")
    if _number(expected) and _number(given):
        return None if _close(expected, given, near) else "value"
    if type(expected) is not type(given):
        return "type"
    return None if expected == given else "value"


def _unfolded(value: Json) -> Json:
    """A list that a table holds as JSON text, as a list."""
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def read(value: Json, kind: Kind) -> Json:
    """A value as an online store sent it, as the offline column's kind means it: what JSON has no numbers for, and times as POSIX seconds."""
    if not isinstance(value, str) or kind not in ("number", "integer", "time"):
        return value
    if value in NOT_NUMBERS:
        return NOT_NUMBERS[value]
    if kind != "time":
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _finite(value: Json) -> bool:
    """Whether it is a number that a float can be: whole numbers may be larger than any."""
    return _number(value) and abs(value) <= sys.float_info.max


def _close(expected: float, given: float, near: Near) -> bool:
    if expected == given:
        return True
    if isinstance(expected, int) and isinstance(given, int):
        return False
    try:
        allowed = near.atol + near.rtol * abs(expected)
        return math.isfinite(allowed) and abs(expected - given) <= allowed
    except OverflowError:  # a whole number beyond any float
        return False


def hashed(key: Sequence[str]) -> str:
    """What stands for an entity in a reason: enough to find it again for who knows the id, and not the id."""
    return hashlib.sha256("|".join(key).encode("utf-8", "replace")).hexdigest()[:12]


@dataclass(slots=True)
class Seen:
    """One feature: how many of its values were judged, which were wrong and how, and which were late, newer than offline or not to be judged."""

    name: str
    judged: int = 0
    dated: int = 0  # those of which it can be told whether they are late
    late: int = 0
    ahead: int = 0
    untold: int = 0
    behind: float = 0.0  # seconds by which the latest of the late ones is behind
    causes: Counter[Cause] = field(default_factory=Counter)
    expected: dict[str, Json] = field(default_factory=dict)  # of every entity judged
    given: dict[str, Json] = field(default_factory=dict)  # of those whose value differs
    who: list[str] = field(default_factory=list)

    def add(self, cause: Cause | None, expected: Json, given: Json, who: str) -> None:
        """One judged value."""
        self.judged += 1
        self.expected[who] = expected
        if cause:
            self.causes[cause] += 1
            self.who.append(who)
        if cause == "value":
            self.given[who] = given

    @property
    def pairs(self) -> list[tuple[Json, Json]]:
        """Expected and given of those whose value differs."""
        return [(self.expected[who], value) for who, value in self.given.items()]

    @property
    def wrong(self) -> int:
        return self.causes.total()

    def share(self, limit: float, level: float) -> Reading:
        """The share that is wrong. The interval is exact: at joint levels Wilson's would be too short for shares this small."""
        return _share(self.wrong, self.judged, limit, level)

    def lateness(self, limit: float, level: float) -> Reading:
        """The share that is late."""
        return _share(self.late, self.dated, limit, level)


def _share(hits: int, n: int, limit: float, level: float) -> Reading:
    return Reading(hits / n if n else None, limit, clopper_pearson(hits, n, level), n)


NEARLY = Near(SAME, 0.0)
WORDS: Mapping[Cause, str] = {
    "missing": "missing",
    "null": "null",
    "unexpected": "a value where there should be none",
    "type": "another type",
    "value": "another value",
    "expired": "too old for training and still given",
}


def told(seen: Seen, given: str, expected: str, others: Sequence[Seen] = ()) -> str:
    """What is wrong with a feature, most frequent first, and the pattern where there is one: of its own values, or those of another feature."""
    words = ", ".join(f"{WORDS[cause]} in {count}" for cause, count in seen.causes.most_common())
    pattern = hint(seen.pairs, given, expected) or swapped(seen, others, given, expected)
    return f"{words}{f' ({pattern})' if pattern else ''}"


def swapped(seen: Seen, others: Sequence[Seen], given: str, expected: str) -> str:
    """The feature whose expected values these are, where they are nearly all one other feature's."""
    if len(seen.given) < COMMON or len({str(value) for value in seen.given.values()}) < 3:
        return ""
    for other in others:
        pairs = [(other.expected[who], value) for who, value in seen.given.items() if who in other.expected]
        if other.name != seen.name and len(pairs) >= COMMON and _mostly([wrong(one, value, NEARLY) is None for one, value in pairs]):
            return f"{given} is what {expected} has as {other.name}: columns swapped?"
    return ""


def hint(pairs: Sequence[tuple[Json, Json]], given: str, expected: str) -> str:
    """What the differing values have in common; nothing when there are few, or no pattern. No value is told, only relations."""
    if len(pairs) < COMMON:
        return ""
    if all(isinstance(one, str) and isinstance(other, str) for one, other in pairs):
        return _textual(pairs, given)
    numbers = [(float(one), float(other)) for one, other in pairs if _finite(one) and _finite(other)]
    if len(numbers) < MOST * len(pairs) or len({one for one, _ in numbers}) < 3:
        return ""
    return _numeric(numbers, given, expected)


def _textual(pairs: Sequence[tuple[str, str]], given: str) -> str:
    if len({other for _, other in pairs}) == 1 < len({one for one, _ in pairs}):
        return f"{given} gives one and the same text for all"
    if _mostly([one.strip().casefold() == other.strip().casefold() for one, other in pairs]):
        return "they differ in case or surrounding blanks only"
    return ""


def _numeric(pairs: Sequence[tuple[float, float]], given: str, expected: str) -> str:
    if len({other for _, other in pairs}) == 1:
        return f"{given} gives one and the same number for all: a default that was filled in?"
    ratio = median([other / one for one, other in pairs if one] or [1.0])
    if _explained(pairs, [other - ratio * one for one, other in pairs], abs(ratio)):
        return f"{given} is {ratio:.4g} times {expected}: another unit?"
    step = median(other - one for one, other in pairs)
    if _explained(pairs, [other - one - step for one, other in pairs], 1.0):
        return f"{given} is {expected} {'+' if step >= 0 else '-'} {abs(step):.4g}: another origin or time zone?"
    for digits in range(7):
        if _mostly([abs(round(one, digits) - other) < 1e-9 * max(1.0, abs(other)) for one, other in pairs]):
            return f"{given} is {expected} rounded to {digits} decimals"
    return ""


def _explained(pairs: Sequence[tuple[float, float]], left: Sequence[float], scale: float) -> bool:
    """Whether what is left of the differences is next to nothing, beside them and beside how far the expected values are spread."""
    spread = scale * (max(one for one, _ in pairs) - min(one for one, _ in pairs))
    return _mostly([abs(rest) <= SAME * min(abs(other - one), spread) for (one, other), rest in zip(pairs, left, strict=True)])


def _mostly(follows: Sequence[bool]) -> bool:
    return sum(follows) >= MOST * len(follows)
