"""Whether bad data would be noticed: faults are put into a copy of live rows, in memory, and the contract must break for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent import Columns, Reading, Table, Verdict, Window, check, fail, nodata, ok, warn
from checks import _contract, _rules
from checks._altered import Altered, as_text, beyond, nulls, unseen
from checks._columns import by_row
from checks._rules import Broken, Pair, Rule

FAULTS = ("null spike", "type flip", "out of range", "unseen category", "dropped column", "duplicates")


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault: what it is called, which column it is put into, and the rows as it leaves them."""

    name: str
    column: str
    rows: Altered


@check(
    pillar="data",
    asks="Would bad data be noticed, were it to come?",
    severity="ticket",
    answers=("DATA-02", "MON-09"),
)
def faults(
    live: Columns,
    window: Window,
    *,
    columns: dict[str, Rule] | None = None,
    features: Rule | None = None,
    pairs: list[Pair] | None = None,
    unique: list[list[str]] | None = None,
    rows_at_least: int = 20,
) -> Verdict:
    """Puts six faults, one after another, into a copy of the window's rows, and judges each by these rules of data.contract: a null spike, a
    type flip, values out of range, an unseen category, a dropped column, duplicates. Nothing is written anywhere, and nobody is told.

    Half of the rows are spoiled each time. All six noticed is ok, four or five warn, fewer fail. A fault with no column to put it into counts as not
    noticed. Rows that break the contract as they are tell nothing (nodata).
    """
    rows, between, sets = live.between(window.start, window.end), [_rules.pair(one) for one in pairs or ()], [list(names) for names in unique or ()]

    def broken(table: Table) -> list[Broken]:
        rules, missing = _rules.chosen(table, table.kinds(), columns or {}, features)
        return [*missing, *_contract.judged(table, table.kinds(), rules, between, sets, None).broken]

    if not by_row(rows):
        return nodata("only counts leave the engine, so that no fault can be put into its rows; watch an export of them")
    if (n := rows.rows()) < rows_at_least:
        return nodata(f"{n} rows; {rows_at_least} are needed", Reading(n, rows_at_least, unit="rows"))
    if clean := broken(rows):
        return nodata(f"the rows as they are do not keep the contract, so that it tells nothing of faults: {clean[0].why}")
    put = {one.name: one for one in _injected(rows, _rules.chosen(rows, rows.kinds(), columns or {}, features)[0], unique or [])}
    found = {name: name in put and bool(broken(put[name].rows)) for name in FAULTS}
    return _told(found, put, n)


def _told(found: Mapping[str, bool], put: Mapping[str, Injected], n: int) -> Verdict:
    noticed = sum(found.values())
    parts = {f"injected.{name}": Reading(float(one), 1.0, n=n) for name, one in found.items()}
    reading = Reading(noticed, len(FAULTS), n=n, unit="faults")
    missed = [f"{name} in {put[name].column}" if name in put else f"{name}, for which no column has a rule" for name, one in found.items() if not one]
    told = f"{noticed} of {len(FAULTS)} faults in a copy of {n} rows break the contract" + (f"; not noticed: {'; '.join(missed)}" if missed else "")
    return (ok if noticed == len(FAULTS) else warn if noticed >= 4 else fail)(told, reading, parts=parts)


def _injected(rows: Columns, rules: Mapping[str, Rule], unique: Sequence[Sequence[str]]) -> list[Injected]:
    """Each fault in the first column whose rule is about such a thing."""
    kinds = rows.kinds()
    numbers = [name for name in rules if kinds[name] in ("number", "integer")]
    ranged = [name for name in numbers if rules[name].low is not None or rules[name].high is not None]
    listed = [name for name in rules if rules[name].categories]
    keyed = [name for name in rules if rules[name].unique]
    there: list[tuple[str, Sequence[str], Callable[[str], Altered]]] = [
        ("null spike", [name for name in rules if rules[name].nulls is not None], lambda name: Altered(rows, name, nulls)),
        ("type flip", [name for name in rules if rules[name].wants], lambda name: Altered(rows, name, *as_text(kinds[name]))),
        ("out of range", ranged, lambda name: Altered(rows, name, beyond(rules[name].low, rules[name].high))),
        ("unseen category", listed, lambda name: Altered(rows, name, unseen)),
        ("dropped column", [name for name in rules if rules[name].required], lambda name: Altered(rows, name, gone=True)),
        ("duplicates", [*keyed, *(" and ".join(names) for names in unique)], lambda name: Altered(rows, twice=True)),
    ]
    return [Injected(name, columns[0], make(columns[0])) for name, columns, make in there if columns]
