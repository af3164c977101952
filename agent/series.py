"""Rows for tests from a short notation, `1x60 _x10 normal(100,15)x500`, written as a SQLite table with the times a log would have."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from agent.config.source import plain
from agent.model import UTC, Json, duration

MOST = 1_000_000  # rows of one table
TABLE = "rows"
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(r"(?P<value>\S+?)(?:x(?P<times>\d{1,9}))?", re.ASCII)
_STEPS = re.compile(rf"(?P<first>{_NUMBER})(?P<step>[-+](?:\d+\.?\d*|\.\d+))", re.ASCII)
_DRAWN = re.compile(rf"(?P<how>normal|uniform)\((?P<a>{_NUMBER}),(?P<b>{_NUMBER})\)", re.ASCII)
SAYS = "write values with a space between them, each V, VxN (N times), A+BxN (A, A+B, ...), _ for null, normal(MEAN,SD)xN or uniform(LOW,HIGH)xN"


def values(column: str, written: Json) -> list[Json]:
    """The values of one column: of a list those in it, of a number itself, of text what its notation says. ValueError tells what is wrong."""
    if isinstance(written, list):
        return written
    if not isinstance(written, str):
        return [written]
    made: list[Json] = []
    for place, token in enumerate(written.split()):
        made += _token(token, f"{column} {place}", MOST - len(made))
    if not made:
        raise ValueError(f"has no values; {SAYS}")
    return made


def _token(token: str, seed: str, room: int) -> list[Json]:
    found = _TOKEN.fullmatch(token)
    assert found is not None  # a token has no space, and any text is a value
    value, times = found["value"], int(found["times"] or 1)
    if times > room:
        raise ValueError(f"{token[:40]!r} makes more than {MOST:,} rows; that is the most a table of a test has")
    if value in ("_", "null"):
        return [None] * times
    if steps := _STEPS.fullmatch(value):
        first, step = float(steps["first"]), float(steps["step"])
        return [_whole(first + n * step) for n in range(times)]
    if drawn := _DRAWN.fullmatch(value):
        chance = random.Random(seed)  # noqa: S311 - the same rows every time is the point
        draw = chance.gauss if drawn["how"] == "normal" else chance.uniform
        return [draw(float(drawn["a"]), float(drawn["b"])) for _ in range(times)]
    if "(" in value:
        raise ValueError(f"{token[:40]!r} is no value; {SAYS}")
    return [plain(value)] * times


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else round(number, 9)


def columns(series: Mapping[str, Json]) -> dict[str, list[Json]]:
    """Equally long columns; one that has a single value repeats it. ValueError names two that do not fit."""
    made = {name: values(name, written) for name, written in series.items()}
    count = max((len(column) for column in made.values()), default=0)
    longest = next((name for name, column in made.items() if len(column) == count), "")
    for name, column in made.items():
        if len(column) not in (1, count):
            raise ValueError(f"{name} has {len(column)} values and {longest} {count}; make them equally many, or one that is repeated")
    return {name: column * count if len(column) == 1 else column for name, column in made.items()}


def rows(series: Mapping[str, Json], options: Mapping[str, Json], begin: datetime, every: timedelta) -> list[dict[str, Json]]:
    """One row each `every` from `begin`; the declared time and id are filled in where the series do not give them."""
    made = columns(series)
    count = len(next(iter(made.values())))
    time, name = options.get("time"), options.get("id")
    if time and time["column"] not in made:
        made[time["column"]] = [_instant(begin + n * every, time) for n in range(count)]
    if isinstance(name, str) and name not in made:
        made[name] = [f"r{n}" for n in range(count)]
    return [{column: cells[n] for column, cells in made.items()} for n in range(count)]


def dated(given: Sequence[Mapping[str, Json]], options: Mapping[str, Json], begin: datetime) -> list[dict[str, Json]]:
    """Rows that were written out; a time such as 5m is that long after `begin`."""
    time = options.get("time")
    return [dict(row) if time is None else {**row, time["column"]: _meant(row.get(time["column"]), time, begin)} for row in given]


def _meant(value: Json, time: Mapping[str, Json], begin: datetime) -> Json:
    try:
        return _instant(begin + duration(value), time) if isinstance(value, str) else value
    except ValueError:
        return value


def _instant(at: datetime, time: Mapping[str, Json]) -> Json:
    unit = UNITS.get(time.get("unit", "iso"))
    if unit is None:
        return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * unit // 1_000_000


def write(path: Path, given: Sequence[Mapping[str, Json]]) -> str:
    """The rows as a table of a new SQLite file; the URL that names it. Lists and mappings are kept as JSON text."""
    names = list(dict.fromkeys(name for row in given for name in row))
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    kinds = [_kind([row.get(name) for row in given]) for name in names]
    with closing(sqlite3.connect(path)) as con, con:
        con.execute(f"CREATE TABLE {TABLE} ({', '.join(f'{name} {kind}' for name, kind in zip(quoted, kinds, strict=True))})")
        con.executemany(f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(names))})", _cells(names, given))  # noqa: S608 - names of ours
    return f"sqlite:{path.name}?table={TABLE}"


def _cells(names: Sequence[str], given: Sequence[Mapping[str, Json]]) -> Iterator[list[Json]]:
    for row in given:
        yield [json.dumps(value) if isinstance(value := row.get(name), (list, dict)) else value for name in names]


def _kind(cells: Sequence[Json]) -> str:
    """What SQLite is told: values are stored as they are, but a column of truths must be known as one."""
    known = {type(cell) for cell in cells if cell is not None}
    if known == {bool}:
        return "BOOLEAN"
    return "INTEGER" if known == {int} else "REAL" if known and known <= {int, float} else "BLOB" if not known <= {str, list, dict} else "TEXT"
