"""What an engine is asked: names and conditions in the SQL that SQLite and DuckDB share, and the file and table a URL names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from agent import Json, Kind, Locator
from agent.errors import DataError
from agent.targets._times import UNITS, micros

Where: TypeAlias = tuple[str, list[Any]]  # a condition and its values


@dataclass(frozen=True, slots=True)
class Stored:
    """A column as the engine holds it; `naive` is a native time without a zone, `of` what a list holds."""

    kind: Kind
    naive: bool = False
    of: Kind = "other"


WEST, EAST = timedelta(hours=12, minutes=1), timedelta(hours=14, minutes=1)  # how far wall clocks stand from UTC
_DAY = timedelta(days=1)


def locate(at: Locator) -> tuple[Path, str | None]:
    """The file (relative paths start at the Locator's folder) and the table that a URL names."""
    path, _, query = path_of(at).partition("?")
    return Path(at.folder) / path, parse_qs(query).get("table", [None])[0]


def path_of(at: Locator) -> str:
    """What stands behind the scheme, with or without two slashes."""
    return at.url.partition(":")[2].removeprefix("//")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or what there is."""
    import difflib

    names = list(known)
    near = difflib.get_close_matches(word, names, 1, 0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there is {', '.join(sorted(names)[:12])}" if names else ""


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def excluded(rule: Mapping[str, Json], kind: Kind, place: str) -> Where:
    name = quoted(rule["column"])
    if "prefix" in rule:
        text = str(rule["prefix"])
        return f"(substr(CAST({name} AS VARCHAR), 1, {len(text)}) = ?) IS NOT TRUE", [text]
    values = excluded_values(rule, kind, place)
    return f"({name} IN ({', '.join('?' * len(values))})) IS NOT TRUE", values


def excluded_values(rule: Mapping[str, Json], kind: Kind, place: str) -> list[Any]:
    """What a rule that names whole values compares its column with."""
    if "equals" not in rule and "in" not in rule:
        raise DataError(f"{place}: exclude of column '{rule['column']}' says neither equals, prefix nor in")
    return [_typed(value, kind, rule["column"], place) for value in rule.get("in", [rule.get("equals")])]


def _typed(value: Json, kind: Kind, column: str, place: str) -> Any:
    """The value as the column's kind would hold it, so that 1, true and "1" exclude the same rows in every engine."""
    if kind == "boolean":
        return str(value).lower() in ("1", "true", "yes")
    if kind in ("number", "integer"):
        try:
            return float(value) if not isinstance(value, bool) else int(value)
        except (TypeError, ValueError) as problem:
            raise DataError(f"{place}: exclude compares column '{column}', which holds numbers, with {value!r}: it can match nothing") from problem
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


# What a database can leave out before a row travels. Never too tight: the exact cut is made on what `read` returns.


def roughly(quoted: str, kind: str, time: Mapping[str, Any], start: datetime, end: datetime) -> Where:
    """An SQL condition, the same for SQLite and DuckDB, that keeps every row of [start, end) and few others."""
    if kind in ("number", "integer"):
        unit = UNITS.get(time.get("unit", "iso"), 1.0)
        return f"{quoted} >= ? AND {quoted} < ?", [(micros(start) - 1) / unit, micros(end) / unit]
    if kind == "time":
        early, late = (_shift(at, step).replace(tzinfo=None) for at, step in ((start, -_DAY), (end, _DAY)))
        return f"{quoted} >= CAST(? AS TIMESTAMP) AND {quoted} <= CAST(? AS TIMESTAMP)", [str(early), str(late)]
    return _among(quoted, start, end) if is_iso_text(kind, time) else ("1 = 1", [])


def is_iso_text(kind: str, time: Mapping[str, Any]) -> bool:
    """Whether event times are told apart by their text."""
    return kind == "text" and time.get("unit", "iso") == "iso"


def _among(quoted: str, start: datetime, end: datetime) -> Where:
    """ISO text: as far around as zones reach, by text order; and to the second where the text says that it is UTC."""
    around, tight = _around(quoted, start, end), exactly_utc(quoted, start, end)
    return f"{around[0]} AND ({tight[0]} OR NOT ({_utc(quoted)}))", [*around[1], *tight[1]]


def strays(quoted: str, start: datetime, end: datetime) -> Where:
    """Rows around [start, end) whose text is not plainly UTC: where there are none, `exactly_utc` finds the window's rows by an index alone."""
    sql, values = _around(quoted, start, end)
    return f"{sql} AND NOT ({_utc(quoted)})", values


def exactly_utc(quoted: str, start: datetime, end: datetime) -> Where:
    """Text order is time order between texts that all say UTC."""
    return f"{quoted} >= ? AND {quoted} <= ?", [_second(start.astimezone(UTC), "T"), _second(end.astimezone(UTC), "T") + "~"]


def _around(quoted: str, start: datetime, end: datetime) -> Where:
    return f"{quoted} >= ? AND {quoted} <= ?", list(reach(start, end))


def reach(start: datetime, end: datetime) -> tuple[str, str]:
    """Between these, by the order of text, lies every ISO time of [start, end), whatever its zone."""
    early, late = _shift(start.astimezone(UTC), -WEST), _shift(end.astimezone(UTC), EAST)
    return _second(early, " "), _second(late, "T") + "~"


def _utc(quoted: str) -> str:
    return f"{quoted} GLOB '????-??-??T??:??:*Z' OR {quoted} GLOB '????-??-??T??:??:*+00:00'"


def _second(at: datetime, separator: str) -> str:
    return at.strftime("%Y").zfill(4) + at.strftime(f"-%m-%d{separator}%H:%M:%S")


def _shift(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if by > timedelta(0) else datetime.min.replace(tzinfo=UTC)
