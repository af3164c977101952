"""Proves the record: that the chain of evidence holds, and that what it seals is still there and still the same.

One pass over the chain and, beside it, one over each kind of row that it seals: both were appended in the same order. Rows are read raw, and their
JSON is hashed as it is stored, which is canonical; only where that does not fit is a row taken apart and said anew, as older stores need it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, repeat
from json.encoder import encode_basestring
from sqlite3 import Cursor
from typing import Any

from sqlalchemy import JSON, Table, and_, select, text

from agent._ledger import CHAINED, CHECKPOINT, EVENT, GENESIS, RUN, Ledger, link
from agent._rows import Moment
from agent.model import digest

Text = Callable[[Any], str]
Raw = tuple[Any, ...]  # a row as the database holds it
NO_ROW: tuple[Raw, str] = ((), "")
AT_ONCE = 1000  # rows that are said at once, and texts of a column that are remembered


def broken(ledger: Ledger) -> Iterator[str]:
    """A sentence for every place where the record is not what was sealed; nothing when it is."""
    ledger.append()
    start = ledger.one(select(CHECKPOINT).order_by(CHECKPOINT.c.seq.desc()).limit(1))
    kinds = {kind: _Sealed(kind, table, ledger, whole=start is None) for kind, table in CHAINED.items()}
    before, seq = (GENESIS, 0) if start is None else (start["link"], start["seq"])
    for number, at, kind, ref, own, linked in _raw(ledger, "SELECT seq, at, kind, ref, digest, link FROM evidence ORDER BY seq"):
        if number != seq + 1:
            yield f"evidence {seq + 1} to {number - 1} is missing"
        if linked != link(before, own):
            yield f"evidence {number} ({kind} {ref}, {str(at)[:19]}Z) does not follow from what is before it"
        before, seq = linked, number
        if kind in kinds and isinstance(ref, int):
            yield from kinds[kind].held(ref, own, at)
        else:
            yield f"evidence {number} seals no row: {kind} {ref}"
    last = ledger.conn.execute(text("SELECT max(seq) FROM sqlite_sequence WHERE name = 'evidence'")).scalar() or 0
    if last > seq:
        yield f"evidence {seq + 1} to {last} is missing"
    for sealed in kinds.values():
        yield from sealed.loose()
    yield from _plans(ledger)


def _raw(ledger: Ledger, statement: str) -> Cursor:
    """Rows as the database holds them: to make values of a hundred thousand that are only hashed would cost ten times as much."""
    cursor: Cursor = ledger.conn.connection.cursor().execute(statement)
    return cursor


@dataclass
class _Sealed:
    """The rows of one kind, walked beside the chain that seals them."""

    kind: str
    table: Table
    ledger: Ledger
    whole: bool  # the chain reaches back to the first row
    names: Sequence[str] = field(init=False)
    texts: Sequence[Text] = field(init=False)

    def __post_init__(self) -> None:
        self.names = sorted(column.name for column in self.table.columns if column.name != "id")
        self.texts = [_text(self.table.c[name].type) for name in self.names]
        self._rows = self._walked()
        self._row, self._own = next(self._rows, NO_ROW)
        self._dropped = _dropped(self.ledger) if self.kind == "finding" else ""

    def held(self, ref: int, sealed: str, at: str) -> Sequence[str]:
        """Hold the row of that number against what was sealed of it; what stands before it and was never sealed is told too."""
        told = self.loose(ref) if self._row and self._row[0] < ref else ()
        row, own, self.whole = self._row, self._own, True  # from the first that is sealed on, all are
        if not row or row[0] != ref:
            return (*told, f"{self.kind} {ref} is gone") if str(at) >= self._dropped else told
        self._row, self._own = next(self._rows, NO_ROW)
        if own == sealed or self._taken_apart(row) == sealed:
            return told
        return (*told, f"{self.kind} {ref} is not what was sealed")

    def loose(self, before: float = math.inf) -> Sequence[str]:
        """Rows that come next and before that number: none of them was sealed."""
        found = []
        while self._row and self._row[0] < before:
            found.append(f"{self.kind} {self._row[0]} is not in the chain")
            self._row, self._own = next(self._rows, NO_ROW)
        return found if self.whole else ()

    def _walked(self) -> Iterator[tuple[Raw, str]]:
        """Each row with its digest. Many are said at once, column by column: one by one they would cost three times as much."""
        listed = ", ".join(f'"{name}"' for name in ("id", *self.names))
        cursor = _raw(self.ledger, f"SELECT {listed} FROM {self.kind} ORDER BY id")  # noqa: S608 - names of our own tables
        while rows := cursor.fetchmany(AT_ONCE):
            for row, said in zip(rows, self._said(rows), strict=True):
                yield row, hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def _said(self, rows: Sequence[Raw]) -> Iterator[str]:
        """Rows in canonical JSON."""
        _, *columns = zip(*rows, strict=True)
        named = [(repeat(f'{"," if n else "{"}"{name}":'), map(self.texts[n], columns[n])) for n, name in enumerate(self.names)]
        return map("".join, zip(*chain.from_iterable(named), repeat("}")))  # a name is repeated for as long as there are values

    def _taken_apart(self, row: Raw) -> str:
        """The digest of a row whose JSON is not stored in the canonical way; no digest where it cannot be read at all."""
        try:
            return digest({name: self._value(name, value) for name, value in zip(self.names, row[1:], strict=True)})
        except (ValueError, TypeError):
            return ""

    def _value(self, name: str, value: Any) -> Any:
        kind = self.table.c[name].type
        if value is None:
            return None
        if isinstance(kind, Moment):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        return json.loads(value) if isinstance(kind, JSON) else value


def _text(kind: Any) -> Text:
    """How a column's raw value is said in canonical JSON."""
    if isinstance(kind, JSON):
        return _json
    if isinstance(kind, Moment):
        return _moment
    return _plain if kind.python_type in (int, float) else _Said().__getitem__


class _Said(dict[Any, str]):
    """How texts of a column were said before: names and reasons recur. Nothing else is kept, for 1 and 1.0 are one key and two texts."""

    def __missing__(self, raw: Any) -> str:
        said = _plain(raw)
        if isinstance(raw, str) and len(self) < AT_ONCE:
            self[raw] = said
        return said


def _json(raw: Any) -> str:
    return "null" if raw is None else str(raw)


def _plain(raw: Any) -> str:
    if isinstance(raw, str):
        return encode_basestring(raw)
    return "null" if raw is None else repr(raw) if isinstance(raw, int | float) and raw == raw else json.dumps(raw, default=str)


def _moment(raw: Any) -> str:
    if not isinstance(raw, str):
        return _plain(raw)
    fraction = raw[19:]
    return f'"{raw[:10]}T{raw[11:19]}{"" if fraction == ".000000" else fraction}+00:00"'


def _dropped(ledger: Ledger) -> str:
    """Until when retention wrote down to have dropped findings, as a stored time; "" for never."""
    found = ledger.one(select(EVENT.c.body).where(EVENT.c.kind == "retention").order_by(EVENT.c.id.desc()).limit(1))
    if found is None:
        return ""
    return datetime.fromisoformat(found["body"]["findings_before"]).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _plans(ledger: Ledger) -> Iterator[str]:
    planned = select(RUN.c.id, RUN.c.plan, EVENT.c.body).join(EVENT, and_(EVENT.c.run == RUN.c.id, EVENT.c.kind == "run.planned"))
    for row in ledger.stream(planned):
        if row["plan"] is None or digest(row["plan"]) != row["body"]["digest"]:
            yield f"the plan of run {row['id']} is not what was sealed"
