"""Whether live rows keep their contract, and whether the agent's own probes have come back as data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from agent import PROBE_PREFIX, UTC, Ask, Columns, Json, Kind, Reading, Tally, Verdict, Window, check, fail, nodata, ok, skip, spell
from agent.stats import wilson


@dataclass(frozen=True, slots=True)
class Rule:
    """What one column promises. Shares are of the rows in the window; `outside` and `unseen` allow that share beyond the range or the list."""

    type: Kind | None = None
    required: bool = True
    nulls: float | None = None
    low: float | None = None
    high: float | None = None
    outside: float = 0.0
    categories: tuple[str | int | bool, ...] | None = None
    unseen: float = 0.0
    length: int | None = None  # of the lists in a JSON column


@dataclass(frozen=True, slots=True)
class Broken:
    """One rule that does not hold: its name, in words, and the number beside its limit."""

    name: str
    why: str
    reading: Reading
    excess: float  # how far over, to name the worst first: a share beyond its limit, 1 and more where a whole column is wrong


@check(pillar="data", asks="Do live rows keep their contract: columns, types, nulls, ranges, categories, freshness, volume?", cause="data")
def contract(
    live: Columns,
    window: Window,
    now: datetime,
    *,
    columns: dict[str, Rule] | None = None,
    features: Rule | None = None,
    freshness: timedelta | None = None,
    volume: int | None = None,
    ahead: timedelta = timedelta(minutes=1),
    rows_at_least: int = 1,
) -> Verdict:
    """Fails when a rule is broken in the window; each broken rule is a part, the worst three are named.

    `columns` maps a column, or a pattern such as "p*", to its Rule; an exact name goes before a pattern. `features` is the Rule of every
    declared feature, and its `length` that of the JSON lists (else as many as are declared). The declared columns must be there and JSON
    lists must have their length whether or not a rule says so. `freshness` is the oldest the newest event may be, `volume` the fewest rows.
    No event may lie more than `ahead` in the future. Fewer than `rows_at_least` rows, with nothing broken, is nodata.
    """
    rows = live.between(window.start, window.end)
    kinds = live.kinds()
    n = rows.rows()
    broken = [*_in_time(live, window, now, freshness, ahead), *_in_volume(n, volume)]
    rules, missing = _rules(live, kinds, columns or {}, features)
    if n and n >= rows_at_least:
        tallies = rows.tally([_ask(name, rule) for name, rule in rules.items()])
        stored = rows.kinds()
        broken += [*missing, *(one for name, rule in rules.items() for one in _column(name, rule, stored[name], tallies[name]))]
    elif not broken:
        return nodata(f"{n} rows between {window.start:%H:%M:%S} and {window.end:%H:%M:%S}; {rows_at_least} are needed", Reading(n, rows_at_least))
    return _verdict(broken, n, len(rules))


def _verdict(broken: list[Broken], n: int, columns: int) -> Verdict:
    reading = Reading(len(broken), 0, n=n, unit="rules")
    if not broken:
        return ok(f"{n} rows keep the contract of {columns} columns", reading)
    worst = sorted(broken, key=lambda one: -one.excess)
    more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
    reason = f"{_several(len(broken), 'rule')} broken in {_several(n, 'row')}: {'; '.join(one.why for one in worst[:3])}{more}"
    return fail(reason, reading, parts={one.name: one.reading for one in worst})


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# Which rule holds for which column


def _rules(live: Columns, kinds: Mapping[str, Kind], columns: Mapping[str, Rule], features: Rule | None) -> tuple[dict[str, Rule], list[Broken]]:
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
    missing = [Broken(name, f"column {name} is missing", Reading(None), 2.0) for name, rule in asked.items() if rule.required and name not in kinds]
    missing += [
        Broken(pattern, f"no column matches {pattern}", Reading(None), 2.0)
        for pattern, rule in patterns.items()
        if _rule(rule).required and not any(fnmatchcase(name, pattern) for name in kinds)
    ]
    if json_column in kinds:
        length = features and _rule(features).length
        asked[f"{json_column}.length"] = Rule(length=length or (asked[json_column].length if json_column in asked else None) or len(names))
    return {name: rule for name, rule in asked.items() if name in kinds}, missing


def _rule(given: Rule | Mapping[str, Json]) -> Rule:
    """A Rule may be written as a plain dict in a notebook."""
    return given if isinstance(given, Rule) else Rule(**given)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _declared(live: Columns) -> Iterator[str]:
    for what in ("id", "entity", "version", "prediction", "score", "weight"):
        if isinstance(name := live.declared.get(what), str):
            yield name
    if isinstance(features := live.declared.get("features"), (list, tuple)):
        yield from features


def _features(live: Columns) -> tuple[list[str], str]:
    """The declared feature names, and the JSON column they come from where there is one."""
    features = live.declared.get("features")
    if not isinstance(features, Mapping):
        return list(features or ()), ""
    names = features.get("names") or [f"{features.get('prefix', 'p')}{place}" for place in range(int(features.get("size", 0)))]
    return list(names), str(features["json"])


# What one column broke


def _ask(name: str, rule: Rule) -> Ask:
    low = [] if rule.low is None else [math.nextafter(rule.low, -math.inf)]  # a cut counts what is at most it
    high = [] if rule.high is None else [float(rule.high)]
    keys = (str(rule.length),) if rule.length is not None else tuple(map(_key, rule.categories or ()))
    return Ask(name, (*low, *high), keys)


def _key(category: str | int | bool) -> str:
    """As tallies spell it."""
    return str(category).lower() if isinstance(category, bool) else str(category)


def _column(name: str, rule: Rule, kind: Kind, tally: Tally) -> Iterator[Broken]:
    """The rules of one column that do not hold in these rows."""
    if rule.nulls is not None:
        yield from _share(f"{name}.nulls", tally.nulls, tally.rows, rule.nulls, f"{name} is null in")
    if tally.nulls == tally.rows and rule.length is None:
        return  # nothing is there whose type or range could be wrong
    ranged = rule.low is not None or rule.high is not None
    if not _fits(kind, rule.type or ("number" if ranged else None)):
        yield Broken(f"{name}.type", f"{name} holds {kind}, not {rule.type or 'number'}", Reading(None, n=tally.rows), 2.0)
    elif ranged:
        yield from _range(name, rule, tally)
    if rule.length is not None:
        wrong = tally.rows - tally.by_key.get(str(rule.length), 0)
        yield from _share(name, wrong, tally.rows, 0.0, f"{name.removesuffix('.length')} is no list of {rule.length} in")
    elif rule.categories is not None:
        words = f"{name} is none of its {len(rule.categories)} categories in"
        yield from _share(f"{name}.unseen", tally.by_key.get(None, 0), tally.rows, rule.unseen, words)


def _fits(kind: Kind, wanted: Kind | None) -> bool:
    return wanted is None or kind == wanted or (wanted == "number" and kind in ("integer", "time"))


def _range(name: str, rule: Rule, tally: Tally) -> Iterator[Broken]:
    below = tally.counts[0] if rule.low is not None else 0
    above = tally.counts[-1] if rule.high is not None else 0
    span = f"[{'-inf' if rule.low is None else f'{rule.low:g}'}, {'inf' if rule.high is None else f'{rule.high:g}'}]"
    for one in _share(f"{name}.range", below + above, tally.rows, rule.outside, f"{name} is outside {span} in"):
        yield replace(one, why=f"{one.why} (lowest {tally.low:g}, highest {tally.high:g})")


def _share(name: str, hits: int, n: int, limit: float, words: str) -> Iterator[Broken]:
    if hits > limit * n:
        why = f"{words} {hits} of {_several(n, 'row')}" + (f" (limit {limit:.3g})" if limit else "")
        yield Broken(name, why, Reading(hits / n, limit, wilson(hits, n), n), hits / n - limit)


def _in_volume(n: int, volume: int | None) -> Iterator[Broken]:
    if volume is not None and n < volume:
        yield Broken("volume", f"{_several(n, 'row')} came, at least {volume} should", Reading(n, volume, n=n, unit="rows"), 1 - n / volume)


def _in_time(live: Columns, window: Window, now: datetime, freshness: timedelta | None, ahead: timedelta) -> Iterator[Broken]:
    if freshness is not None:
        yield from _stale(live, window, now, freshness, ahead)
    later = live.between(now + ahead, datetime.max.replace(tzinfo=UTC)).rows()
    if later:
        why = f"{_several(later, 'row')} {'has' if later == 1 else 'have'} an event time more than {spell(ahead)} in the future"
        yield Broken("time.future", why, Reading(later, 0, n=later, unit="rows"), 1.0)


def _stale(live: Columns, window: Window, now: datetime, freshness: timedelta, ahead: timedelta) -> Iterator[Broken]:
    start = min(window.start, now - freshness)
    column = live.declared["time"]["column"]
    newest = live.between(start, now + ahead).tally([Ask(column)])[column].high
    age = now.timestamp() - newest if newest is not None else (now - start).total_seconds()
    if newest is None or age > freshness.total_seconds():
        words = f"the newest event is {spell(timedelta(seconds=age))} old" if newest is not None else f"no event in the last {spell(now - start)}"
        yield Broken("freshness", f"{words} (limit {spell(freshness)})", Reading(age, freshness.total_seconds(), unit="s"), 1.0)


@check(pillar="data", asks="Are the agent's own probes kept out of the data?", cause="data")
def probe_leak(live: Columns, window: Window, *, flag: str | None = None) -> Verdict:
    """Fails when rows made by probes are still in the table after `exclude`: they would be judged, and trained on, as if users had sent them.

    A probe is known by its id, or by a column that is true for probes: `flag`, or one called "probe". Neither there: skip.
    """
    rows = live.between(window.start, window.end)
    kinds, name = live.kinds(), live.declared.get("id")
    marked = flag or ("probe" if "probe" in kinds else None)
    if not name and not marked:
        return skip("probes cannot be told from users: declare the id column, or log a column called probe")
    found = {column: count for column, count in (_by_id(rows, name), _by_flag(rows, marked)) if column}
    n, leaked = rows.rows(), max(found.values())
    if not n:
        return nodata("no rows in this window")
    parts = {column: Reading(count, 0, n=n, unit="rows") for column, count in found.items()}
    reading = Reading(leaked, 0, n=n, unit="rows")
    if not leaked:
        return ok(f"no probe among {_several(n, 'row')}", reading, parts=parts)
    lines = ", ".join(_line(column, column == name) for column, count in found.items() if count)
    return fail(f"{_several(leaked, 'probe')} among {_several(n, 'row')}; add to live: exclude: [{lines}]", reading, parts=parts)


def _by_id(rows: Columns, name: str | None) -> tuple[str, int]:
    ids = (value for chunk in rows.column(name) for value in chunk) if name else ()
    return name or "", sum(isinstance(value, str) and value.startswith(PROBE_PREFIX) for value in ids)


def _by_flag(rows: Columns, flag: str | None) -> tuple[str, int]:
    tally = rows.tally([Ask(flag, keys=("0", "false", ""))])[flag] if flag else None
    return flag or "", (tally.by_key.get(None, 0) if tally else 0)


def _line(column: str, by_prefix: bool) -> str:
    return f'{{column: {column}, prefix: "{PROBE_PREFIX}"}}' if by_prefix else f"{{column: {column}, equals: 1}}"
