"""What a data contract is made of: the rule of a column, the rule of a pair of columns, and which rule holds for which column."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

from agent import Json, Kind, Reading, Table
from agent.stats import wilson

PATTERN_LIMIT = 1_000  # characters in one pattern
_BEYOND = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]")  # look-around and back-references: no engine can match them in linear time


@dataclass(frozen=True, slots=True)
class Rule:
    """What one column promises. Shares are of the rows; `outside`, `unseen` and `unlike` allow that share beyond the range, list or pattern."""

    type: Kind | None = None
    required: bool = True
    nulls: float | None = None
    low: float | None = None
    high: float | None = None
    outside: float = 0.0
    categories: tuple[str | int | bool, ...] | None = None
    unseen: float = 0.0
    shortest: int | None = None  # characters of a text
    longest: int | None = None
    pattern: str | None = None  # that all of a text matches, as RE2 writes it
    unlike: float = 0.0
    unique: bool = False
    parent: str | None = None  # the column of `parents` that holds every value
    length: int | None = None  # of the lists in a JSON column

    def __post_init__(self) -> None:
        for share in ("nulls", "outside", "unseen", "unlike"):
            if not 0 <= (getattr(self, share) or 0) <= 1:
                raise ValueError(f"{share} is a share of the rows, from 0 to 1, not {getattr(self, share):g}")
        for least, most in (("low", "high"), ("shortest", "longest")):
            if None not in (getattr(self, least), getattr(self, most)) and getattr(self, least) > getattr(self, most):
                raise ValueError(f"{least} is above {most}, so that no value would do")
        if self.pattern is not None:
            _readable(self.pattern)

    @property
    def wants(self) -> Kind | None:
        """The kind its column must have."""
        ranged = self.low is not None or self.high is not None
        spelled = self.pattern is not None or self.shortest is not None or self.longest is not None
        return self.type or ("number" if ranged else "text" if spelled else None)


def _readable(pattern: str) -> None:
    if len(pattern) > PATTERN_LIMIT:
        raise ValueError(f"the pattern has more than {PATTERN_LIMIT:,} characters")
    try:
        re.compile(pattern)
    except re.error as problem:
        raise ValueError(f"the pattern does not compile: {problem}") from problem
    if found := _BEYOND.search(pattern):
        raise ValueError(f"the pattern uses {found.group()}, which RE2 does not have; write it without look-around and back-references")


@dataclass(frozen=True, slots=True)
class Pair:
    """What holds between two columns of each row, where neither is null: exactly one of the five; `outside` is the share that may be otherwise."""

    column: str
    at_least: str | None = None
    at_most: str | None = None
    above: str | None = None
    below: str | None = None
    equals: str | None = None
    outside: float = 0.0

    def __post_init__(self) -> None:
        if sum(getattr(self, field.name) is not None for field in fields(self)[1:6]) != 1:
            raise ValueError("a pair needs exactly one of at_least, at_most, above, below and equals")
        if not 0 <= self.outside <= 1:
            raise ValueError(f"outside is a share of the rows, from 0 to 1, not {self.outside:g}")

    @property
    def how(self) -> str:
        """Which of the five it is."""
        return next(name for name in ("at_least", "at_most", "above", "below", "equals") if getattr(self, name) is not None)

    @property
    def other(self) -> str:
        return str(getattr(self, self.how))


@dataclass(frozen=True, slots=True)
class Broken:
    """One rule that does not hold: its name, in words, the number beside its limit, how many rows, and hashes of the first ids."""

    name: str
    why: str
    reading: Reading
    excess: float  # how far over, to name the worst first: a share beyond its limit, 1 and more where a whole column is wrong
    rows: int | None = None
    ids: tuple[str, ...] = ()


def several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def share(name: str, hits: int, n: int, limit: float, words: str, note: str = "", ids: Sequence[str] = ()) -> Iterator[Broken]:
    """The rule as broken, where more than its share of the rows break it."""
    if hits > limit * n:
        why = f"{words} {hits} of {several(n, 'row')}" + (f" (limit {limit:.3g})" if limit else "") + note
        yield Broken(name, why, Reading(hits / n, limit, wilson(hits, n), n), hits / n - limit, hits, tuple(ids))


def gone(name: str, why: str) -> Broken:
    """A column that should be there and is not."""
    return Broken(name, why, Reading(None), 2.0)


# Which rule holds for which column


def chosen(live: Table, kinds: Mapping[str, Kind], columns: Mapping[str, Rule], features: Rule | None) -> tuple[dict[str, Rule], list[Broken]]:
    """Column -> Rule for those that are there; what should be and is not."""
    asked = {name: Rule() for name in _declared(live)}
    names, json_column = _features(live)
    if features:
        asked |= {name: replace(_rule(features), length=None) for name in names}
    exact = {name: rule for name, rule in columns.items() if name in kinds or not _is_pattern(name)}
    patterns = {pattern: rule for pattern, rule in columns.items() if pattern not in exact}
    for pattern, rule in patterns.items():
        asked |= {name: _rule(rule) for name in kinds if fnmatchcase(name, pattern)}
    asked |= {name: _rule(rule) for name, rule in exact.items()}
    missing = [gone(name, f"column {name} is missing") for name, rule in asked.items() if rule.required and name not in kinds]
    missing += [
        gone(pattern, f"no column matches {pattern}")
        for pattern, rule in patterns.items()
        if _rule(rule).required and not any(fnmatchcase(name, pattern) for name in kinds)
    ]
    if json_column in kinds:
        length = features and _rule(features).length
        asked[f"{json_column}.length"] = Rule(length=length or (asked[json_column].length if json_column in asked else None) or len(names))
        if json_column in asked:
            asked[json_column] = replace(asked[json_column], length=None)  # it is the lists' length, and not of the text they are stored as
    return {name: rule for name, rule in asked.items() if name in kinds}, missing


def leftover(live: Table, kinds: Mapping[str, Kind], named: Container[str]) -> list[str]:
    """Columns that neither a rule nor the declaration of the table names."""
    features, json_column = _features(live)
    leaned_on = [*features, (live.declared.get("time") or {}).get("column"), json_column, f"{json_column}.length"]
    leaned_on += [rule["column"] for rule in live.declared.get("exclude") or ()]
    return [name for name in kinds if name not in named and name not in leaned_on]


def _rule(given: Rule | Mapping[str, Json]) -> Rule:
    """A Rule may be written as a plain dict in a notebook."""
    return given if isinstance(given, Rule) else Rule(**given)


def pair(given: Pair | Mapping[str, Json]) -> Pair:
    return given if isinstance(given, Pair) else Pair(**given)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _declared(live: Table) -> Iterator[str]:
    for what in ("id", "entity", "version", "prediction", "score", "weight"):
        if isinstance(name := live.declared.get(what), str):
            yield name
    if isinstance(features := live.declared.get("features"), (list, tuple)):
        yield from features


def _features(live: Table) -> tuple[list[str], str]:
    """The declared feature names, and the JSON column they come from where there is one."""
    features = live.declared.get("features")
    if not isinstance(features, Mapping):
        return list(features or ()), ""
    names = features.get("names") or [f"{features.get('prefix', 'p')}{place}" for place in range(int(features.get("size", 0)))]
    return list(names), str(features["json"])
