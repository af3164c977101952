"""Proves the record: that the chain of evidence holds, and that what it seals is still there and still the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Table, and_, select, text

from agent._ledger import CHAINED, CHECKPOINT, EVENT, EVIDENCE, GENESIS, RUN, Ledger, link
from agent.model import UTC, digest


def broken(ledger: Ledger) -> Iterator[str]:
    """A sentence for every place where the record is not what was sealed; nothing when it is."""
    start = ledger.one(select(CHECKPOINT).order_by(CHECKPOINT.c.seq.desc()).limit(1))
    yield from _chain(ledger, start)
    for kind, table in CHAINED.items():
        yield from _altered(ledger, kind, table, start is None)
        yield from _gone(ledger, kind, table)
    yield from _plans(ledger)


def _chain(ledger: Ledger, start: Mapping[str, Any] | None) -> Iterator[str]:
    before, seq = (GENESIS, 0) if start is None else (start["link"], start["seq"])
    for row in ledger.stream(select(EVIDENCE).order_by(EVIDENCE.c.seq)):
        if row["seq"] != seq + 1:
            yield f"evidence {seq + 1} to {row['seq'] - 1} is missing"
        if row["link"] != link(before, row["digest"]):
            yield f"evidence {row['seq']} ({row['kind']} {row['ref']}, {row['at']:%Y-%m-%d %H:%M:%S}Z) does not follow from what is before it"
        before, seq = row["link"], row["seq"]
    last = ledger.conn.execute(text("SELECT max(seq) FROM sqlite_sequence WHERE name = 'evidence'")).scalar() or 0
    if last > seq:
        yield f"evidence {seq + 1} to {last} is missing"


def _altered(ledger: Ledger, kind: str, table: Table, whole: bool) -> Iterator[str]:
    sealed = and_(EVIDENCE.c.ref == table.c.id, EVIDENCE.c.kind == kind)
    for row in ledger.stream(select(table, EVIDENCE.c.digest.label("sealed")).join(EVIDENCE, sealed, isouter=True)):
        body = {name: row[name] for name in _names(table) if name != "id"}
        if row["sealed"] is not None and digest(body) != row["sealed"]:
            yield f"{kind} {row['id']} is not what was sealed"
        if row["sealed"] is None and whole:
            yield f"{kind} {row['id']} is not in the chain"


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _gone(ledger: Ledger, kind: str, table: Table) -> Iterator[str]:
    """What is sealed and no longer there, but for the findings that retention wrote down to have dropped."""
    query = select(EVIDENCE.c.ref).where(EVIDENCE.c.kind == kind, EVIDENCE.c.ref.not_in(select(table.c.id)))
    dropped = ledger.one(select(EVENT.c.body).where(EVENT.c.kind == "retention").order_by(EVENT.c.id.desc()).limit(1)) if kind == "finding" else None
    if dropped is not None:
        query = query.where(EVIDENCE.c.at >= datetime.fromisoformat(dropped["body"]["findings_before"]).astimezone(UTC))
    for row in ledger.stream(query):
        yield f"{kind} {row['ref']} is gone"


def _plans(ledger: Ledger) -> Iterator[str]:
    planned = select(RUN.c.id, RUN.c.plan, EVENT.c.body).join(EVENT, and_(EVENT.c.run == RUN.c.id, EVENT.c.kind == "run.planned"))
    for row in ledger.stream(planned):
        if row["plan"] is None or digest(row["plan"]) != row["body"]["digest"]:
            yield f"the plan of run {row['id']} is not what was sealed"
