"""Whether live rows keep their contract, what that contract might say, and whether the agent's own probes have come back as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from agent import PROBE_PREFIX, UTC, Ask, Columns, Reading, Table, Verdict, Window, check, error, fail, nodata, ok, skip, spell, warn
from agent.errors import ConfigError
from checks import _contract, _expectations, _infer, _rules
from checks._rules import Broken, Pair, several
from checks._rules import Rule as Rule

NEVER = datetime.max.replace(tzinfo=UTC)
AHEAD = timedelta(minutes=5)  # how far two machines' clocks may stand apart


@check(
    pillar="data",
    asks="Do live rows keep their contract: columns, types, nulls, ranges, categories, keys, freshness, volume?",
    cause="data",
    answers=(
        "DATA-01",
        "DATA-03",
    ),
)
def contract(
    live: Table,
    window: Window | None,
    now: datetime,
    parents: Columns | None = None,
    *,
    columns: dict[str, Rule] | None = None,
    features: Rule | None = None,
    pairs: list[Pair] | None = None,
    unique: list[list[str]] | None = None,
    closed: bool = False,
    freshness: timedelta | None = None,
    volume: int | None = None,
    volume_at_most: int | None = None,
    ahead: timedelta = timedelta(minutes=1),
    rows_at_least: int = 1,
) -> Verdict:
    """Fails when a rule is broken in the window (without one, in the table); each broken rule is a part, the worst three are named.

    `columns` maps a column, or a pattern such as "p*", to its Rule; an exact name goes before a pattern. `features` is the Rule of every
    declared feature, and its `length` that of the JSON lists (else as many as are declared). The declared columns must be there and JSON
    lists must have their length whether or not a rule says so. `pairs` hold between two columns of each row; `unique` are sets of columns
    whose values together no two rows share; `closed` allows no column that is neither declared nor named by a rule. `freshness` is the
    oldest the newest event may be, `volume` the fewest rows and `volume_at_most` the most. No event may lie more than `ahead` in the
    future. Fewer than `rows_at_least` rows, with nothing broken, is nodata. The rows are read once, and contract.json tells which broke
    what, by hashed id. Where only counts leave the engine the rules are counted there; those that take rows (`unique`, `pattern`, `shortest`,
    `longest`, `parent`, `pairs`) are named as not judged, and with nothing else broken that is nodata.
    """
    rows = live.between(window.start, window.end) if window else live
    broken = list(_in_time(live, window, now, freshness, ahead))
    rules, missing = _rules.chosen(live, live.kinds(), columns or {}, features)
    between, sets = [_rules.pair(one) for one in pairs or ()], [list(names) for names in unique or ()]
    found = _contract.judged(rows, rows.kinds(), rules, between, sets, parents)
    n = found.rows
    broken += _in_volume(n, volume, volume_at_most)
    if n and n >= rows_at_least:
        broken += [*missing, *found.broken, *(_surplus(live, rules, between, sets) if closed else ())]
    elif not broken:
        return nodata(f"{several(n, 'row')}{_span(window)}; {rows_at_least} are needed", Reading(n, rows_at_least))
    return _verdict(broken, found, len(rules), _contract.naming(live))


def _span(window: Window | None) -> str:
    return f" between {window.start:%H:%M:%S} and {window.end:%H:%M:%S}" if window else ""


def _verdict(broken: list[Broken], found: _contract.Judged, columns: int, named: str) -> Verdict:
    n, unjudged = found.rows, [*found.unjudged, *_uncounted(found.uncounted)]
    reading = Reading(len(broken), 0, n=n, unit="rules")
    worst = sorted(broken, key=lambda one: -one.excess)
    data = {"contract.json": _contract.written(n, columns, worst, unjudged, named)}
    blind = "".join(f"; could not tell: {why}" for why in unjudged)
    if broken:
        more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
        reason = f"{several(len(broken), 'rule')} broken in {several(n, 'row')}: {'; '.join(one.why for one in worst[:3])}{more}{blind}"
        return fail(reason, reading, parts={one.name: one.reading for one in worst}, data=data)
    if found.unjudged:
        return error(found.unjudged[0], reading, data=data)
    if unjudged:
        return nodata(f"{several(n, 'row')} keep{'s' if n == 1 else ''} what can be counted of the contract; {unjudged[0]}", reading, data=data)
    return ok(f"{several(n, 'row')} keep{'s' if n == 1 else ''} the contract of {several(columns, 'column')}", reading, data=data)


def _uncounted(rules: Sequence[str]) -> Iterator[str]:
    if rules:
        told = ", ".join(rules[:5]) + (f" and {len(rules) - 5} more" if len(rules) > 5 else "")
        yield f"{told} cannot be told by counts, and no more leaves this engine; leave out what takes rows, or watch an export of them"


def _surplus(live: Table, rules: Mapping[str, Rule], pairs: Sequence[Pair], unique: Sequence[Sequence[str]]) -> Iterator[Broken]:
    named = {*rules, *(name for one in pairs for name in (one.column, one.other)), *(name for names in unique for name in names)}
    new = _rules.leftover(live, live.kinds(), named)
    if new:
        told = ", ".join(new[:5]) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
        yield Broken("columns.new", f"{several(len(new), 'column')} of which the contract knows nothing: {told}", Reading(len(new), 0), 1.0)


def _in_volume(n: int, least: int | None, most: int | None) -> Iterator[Broken]:
    if least is not None and n < least:
        yield Broken("volume", f"{several(n, 'row')} came, at least {least} should", Reading(n, least, n=n, unit="rows"), 1 - n / least)
    if most is not None and n > most:
        yield Broken("volume", f"{several(n, 'row')} came, at most {most} should", Reading(n, most, n=n, unit="rows"), 1 - most / n)


def _in_time(live: Table, window: Window | None, now: datetime, freshness: timedelta | None, ahead: timedelta) -> Iterator[Broken]:
    """Freshness and future times, from the time column alone, read once; how many lie in the future takes no value of it."""
    if "time" not in live.declared:
        if freshness is not None:
            raise ConfigError("freshness needs to know when the rows happened; declare the table's time")
        return
    column, soon = live.declared["time"]["column"], now + ahead
    if freshness is None:
        later = live.between(soon, NEVER).rows()
    else:
        oldest = datetime.min.replace(tzinfo=UTC) if window is None else min(window.start, now - freshness)
        found = live.between(oldest, NEVER).tally([Ask(column, (soon.timestamp() - 5e-7,))])[column]
        newest, later = found.high, found.counts[-1] if found.counts else 0
        if later:  # the newest of all lies in the future: ask for the newest until now
            newest = live.between(oldest, soon).tally([Ask(column)])[column].high
        yield from _stale(newest, now, now - oldest, freshness)
    if later:
        why = f"{several(later, 'row')} {'has' if later == 1 else 'have'} an event time more than {spell(ahead)} in the future"
        yield Broken("time.future", why, Reading(later, 0, n=later, unit="rows"), 1.0)


def _stale(newest: float | None, now: datetime, looked: timedelta, freshness: timedelta) -> Iterator[Broken]:
    age = now.timestamp() - newest if newest is not None else looked.total_seconds()
    if newest is None or age > freshness.total_seconds():
        words = f"the newest event is {spell(timedelta(seconds=age))} old" if newest is not None else _none(looked)
        yield Broken("freshness", f"{words} (limit {spell(freshness)})", Reading(age, freshness.total_seconds(), unit="s"), 1.0)


def _none(looked: timedelta) -> str:
    return "no row has an event time" if looked > timedelta(days=36525) else f"no event in the last {spell(looked)}"


@check(pillar="data", asks="What do the rows look like, as a contract that they keep?")
def profile(live: Columns, window: Window | None, *, margin: float = 0.1, categories_at_most: int = 20) -> Verdict:
    """Always ok where there are rows: contract.yaml holds the parameters of data.contract under which these rows pass, for a person to edit.

    Ranges are wider than what was seen by `margin` of their width on each side; a column with at most `categories_at_most` different values,
    each of them five times on average, is a list of them.
    """
    if not 0 <= margin <= 10 or not 0 <= categories_at_most <= 1000:
        raise ConfigError("margin lies between 0 and 10, categories_at_most between 0 and 1000")
    rows = live.between(window.start, window.end) if window else live
    found, times = _infer.seen(rows, categories_at_most)
    n = found[0].rows if found else len(times)
    if not n:
        return nodata(f"no rows{_span(window)}, so nothing is known of them", Reading(0, 1, unit="rows"))
    text = _infer.contract(found, times, margin)
    reason = f"{several(n, 'row')} of {several(len(found), 'column')} written as a contract"
    return ok(reason, Reading(n, unit="rows"), parts=_infer.parts(found), data={"contract.yaml": text.encode()})


@check(pillar="data", asks="Did the newest Great Expectations run pass, and is it new?", cause="data")
def expectations(now: datetime, *, results: str, freshness: timedelta = timedelta(days=1), stale: Literal["nodata", "fail"] = "nodata") -> Verdict:
    """Fails when an expectation of the newest result failed; each that did is a part, "<column>.<rule>". Nothing is evaluated here.

    `results` is a file that Great Expectations 1.x wrote, or a folder of them, of which the newest counts: an absolute path, or one that
    starts where the agent does. A result older than `freshness` is what `stale` says. Failed expectations that are only warnings warn;
    expectations that raised could not see, and are an error unless another failed.
    """
    result = _expectations.read(_expectations.newest(Path(results)))
    found, age = result.expectations, now - result.at
    failed = [one for one in found if not one.success and not one.raised]
    raised = [one for one in found if one.raised]
    reading = Reading(len(failed), 0, n=len(found), unit="expectations")
    if age < -AHEAD:
        return error(f"the newest result says that it ran {spell(-age)} in the future; set the clock that is wrong", reading)
    if age > freshness:
        say = fail if stale == "fail" else nodata
        return say(f"the newest result is {spell(age)} old (limit {spell(freshness)}); see why the checkpoint does not run", reading)
    data = {"expectations.json": _expectations.written(result, [*failed, *raised])}
    blind = f"; {several(len(raised), 'expectation')} raised: {', '.join(one.name for one in raised[:3])}" if raised else ""
    if failed:
        told = "; ".join(one.told for one in failed[:3]) + (f"; and {len(failed) - 3} more" if len(failed) > 3 else "")
        say = warn if all(one.severity in ("warning", "info") for one in failed) else fail
        return say(
            f"{len(failed)} of {several(len(found), 'expectation')} failed: {told}{blind}",
            reading,
            parts={one.name: one.reading for one in failed},
            data=data,
        )
    if raised:
        return error(f"none of {several(len(found), 'expectation')} failed{blind}", reading, data=data)
    return (
        ok(f"all of {several(len(found), 'expectation')} passed, {spell(max(age, timedelta(0)))} ago", reading)
        if found
        else nodata("no expectation was evaluated", reading)
    )


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
        return ok(f"no probe among {several(n, 'row')}", reading, parts=parts)
    lines = ", ".join(_line(column, column == name) for column, count in found.items() if count)
    return fail(f"{several(leaked, 'probe')} among {several(n, 'row')}; add to live: exclude: [{lines}]", reading, parts=parts)


def _by_id(rows: Columns, name: str | None) -> tuple[str, int]:
    ids = (value for chunk in rows.column(name) for value in chunk) if name else ()
    return name or "", sum(isinstance(value, str) and value.startswith(PROBE_PREFIX) for value in ids)


def _by_flag(rows: Columns, flag: str | None) -> tuple[str, int]:
    tally = rows.tally([Ask(flag, keys=("0", "false", ""))])[flag] if flag else None
    return flag or "", (tally.by_key.get(None, 0) if tally else 0)


def _line(column: str, by_prefix: bool) -> str:
    return f'{{column: {column}, prefix: "{PROBE_PREFIX}"}}' if by_prefix else f"{{column: {column}, equals: 1}}"
