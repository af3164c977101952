"""The rows of a contract, judged in one pass or by counts alone, and the evidence: which rule is broken, by how many rows, and which, as far as
that may be told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent import Ask, Columns, Json, Kind, Reading, Table, Tally, to_json
from checks._columns import by_row
from checks._keys import ROWS
from checks._promises import IDS, Chunk, Promise, against, both_known, empty, fits, measure, once, promises
from checks._rules import Broken, Pair, Rule, gone


@dataclass
class Judged:
    """What one pass over the rows found; `unjudged` says why a rule could not be told, `uncounted` are rules that counts alone cannot tell."""

    rows: int
    broken: list[Broken]
    unjudged: list[str]
    uncounted: list[str] = field(default_factory=list)


def judged(
    rows: Table,
    kinds: Mapping[str, Kind],
    rules: Mapping[str, Rule],
    pairs: Sequence[Pair],
    unique: Sequence[Sequence[str]],
    parents: Columns | None,
    room: int | None = None,
) -> Judged:
    """Every rule over these rows, which are read once, or counted once where they stay. A rule's column must be among `kinds`; those of pairs and
    sets need not be.

    `room` is how many keys are kept for each rule of uniqueness."""
    room = ROWS if room is None else room
    several: list[Pair | Sequence[str]] = [*pairs, *unique]
    known, missing = _between(several, kinds, room)
    asked = [*(one for name, rule in rules.items() for one in promises(name, rule, kinds[name], parents, room)), *known]
    flipped = [empty(name, name) for name, rule in rules.items() if not fits(kinds[name], rule.wants)]
    if by_row(rows):
        together = [name for one in several for name in _names(one) if name in kinds]
        n = _looked_at(rows, kinds, rules, together, [*asked, *flipped])
    else:
        n = _counted(rows, [*asked, *flipped])
    broken = [*missing, *(one for promise in asked for one in promise.broken(n))]
    broken += [_flipped(one.name, kinds[one.name], rules[one.name].wants, n) for one in flipped if one.hits < n]
    uncounted = [] if by_row(rows) else [promise.name for promise in asked if promise.counts is None]
    return Judged(n, broken, [why for promise in asked if (why := promise.unjudged())], uncounted)


def _looked_at(rows: Columns, kinds: Mapping[str, Kind], rules: Mapping[str, Rule], together: Sequence[str], asked: Sequence[Promise]) -> int:
    """Every row past every promise; how many there are."""
    named = found if isinstance(found := rows.declared.get("id"), str) and found in kinds else None
    keys = {named, *(name for name, rule in rules.items() if rule.unique or rule.parent), *together}
    wanted = list(dict.fromkeys([*rules, *together, *([named] if named else [])])) or [next(iter(kinds))]
    n = 0
    for columns in rows.chunks(wanted, {name for name in keys if name and kinds.get(name) == "integer"}):
        chunk = Chunk(columns)
        n += chunk.rows
        for promise in asked:
            promise.look(chunk, named)
    return n


def _counted(rows: Table, asked: Sequence[Promise]) -> int:
    """One tally of all that counts can tell; how many rows there are. Of a column with two rules both are in one Ask."""
    told = [(promise, promise.counts) for promise in asked if promise.counts]
    asks: dict[str, Ask] = {}
    for _, counts in told:
        ask = counts.ask
        before = asks.get(ask.column, ask)
        asks[ask.column] = Ask(ask.column, before.cuts or ask.cuts, before.keys or ask.keys)
    if not asks:
        return rows.rows()
    found: Mapping[str, Tally] = rows.tally(list(asks.values()))
    for promise, counts in told:
        promise.hits = counts.broken(found[counts.ask.column])
    return next(iter(found.values())).rows


def _flipped(name: str, kind: Kind, wanted: Kind | None, n: int) -> Broken:
    return Broken(f"{name}.type", f"{name} holds {kind}, not {wanted}", Reading(None, n=n), 2.0)


# Several columns


def _names(one: Pair | Sequence[str]) -> Sequence[str]:
    return (one.column, one.other) if isinstance(one, Pair) else one


def _between(asked: Sequence[Pair | Sequence[str]], kinds: Mapping[str, Kind], room: int) -> tuple[list[Promise], list[Broken]]:
    promises, broken = [], []
    for one in asked:
        name = f"{one.column}.{one.how}.{one.other}" if isinstance(one, Pair) else f"{'+'.join(one)}.unique"
        missing = [column for column in _names(one) if column not in kinds]
        if missing:
            broken.append(gone(name, f"{name} needs column {' and '.join(missing)}, which is missing"))
        elif not isinstance(one, Pair):
            promises.append(once(one, room))
        elif (left := measure(kinds[one.column])) != (right := measure(kinds[one.other])) or not left:
            words = f"{one.column} holds {left or kinds[one.column]}, {one.other} {right or kinds[one.other]}: no order between them in"
            promises.append(Promise(name, words, both_known(one)))
        else:
            promises.append(Promise(name, f"{one.column} is not {one.how.replace('_', ' ')} {one.other} in", against(one, left), one.outside))
    return promises, broken


# Evidence


def written(n: int, columns: int, broken: Sequence[Broken], unjudged: Sequence[str], named: str) -> bytes:
    """contract.json: every broken rule with its numbers, how many rows and the hashed ids of the first of them; no value of any row."""
    told: list[Json] = [{"rule": one.name, "why": one.why, **to_json(one.reading), "rows": one.rows, "ids": list(one.ids)} for one in broken]
    return json.dumps({"rows": n, "columns": columns, "broken": told, "not_judged": list(unjudged), "ids": named}, indent=1).encode()


def naming(rows: Table) -> str:
    """How rows are named in contract.json, or why they are not."""
    if not by_row(rows):
        return "only counts leave the engine, so that no row can be named"
    there = isinstance(rows.declared.get("id"), str)
    return f"sha256 of the id, first 12 hex digits, at most {IDS} a rule" if there else "the table declares no id, so that no row can be named"
