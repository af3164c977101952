"""Error budgets: is one used up too fast, and is anything left of it?"""

from __future__ import annotations

from collections.abc import Sequence

from agent import ErrorBudget, Reading, Verdict, check, fail, nodata, ok


@check(pillar="monitoring", asks="Is an error budget being used up faster than people could answer?", exact=True, answers=("MON-08",))
def burn(budgets: Sequence[ErrorBudget], *, fast: float = 14.4, slow: float = 6.0) -> Verdict:
    """No budget is used `fast` times as fast as it lasts over the last 1h and 5m, or `slow` times over 6h and 30m.

    Windows and rates are those of the SRE workbook (Beyer et al. 2018, chapter 5). A fail tells how much is used and when it is gone. A budget that
    is used up and burns no more is ok here: `budget.left` tells of it.
    """
    burning = {one.objective: why for one in budgets if (why := one.burning(fast, slow))}
    parts = {name: reading for one in budgets for name, reading in _burns(one, fast, slow)}
    if not burning:
        return _calm(budgets, parts)
    first = next(one for one in budgets if one.objective in burning)
    more = f" (and {', '.join(list(burning)[1:])})" if len(burning) > 1 else ""
    said = f"{first.objective} burns {burning[first.objective]}{more}: {first.said}"
    return fail(said + _each(budgets), parts[f"{first.objective}.burn_1h"], parts=parts)


def _burns(one: ErrorBudget, fast: float, slow: float) -> Sequence[tuple[str, Reading]]:
    limits = {"1h": fast, "5m": fast, "6h": slow, "30m": slow}
    return [(f"{one.objective}.burn_{name}", Reading(one.burns[name], limit)) for name, limit in limits.items()]


@check(pillar="monitoring", asks="Is anything left of every error budget?", exact=True, severity="ticket", answers=("MON-08",))
def left(budgets: Sequence[ErrorBudget], *, at_least: float = 0.0) -> Verdict:
    """More than the share `at_least` of every budget is left. It can wait for the morning: what is new waits meanwhile by itself."""
    parts = {one.objective: Reading(one.used, 1 - at_least) for one in budgets}
    gone = [one for one in budgets if one.used >= 1 - at_least]
    if not gone:
        return _calm(budgets, parts)
    worst = max(gone, key=lambda one: one.used)
    return fail(f"{worst.objective}: {worst.said}{_each(budgets)}", parts[worst.objective], parts=parts)


def _calm(budgets: Sequence[ErrorBudget], parts: dict[str, Reading]) -> Verdict:
    """ok, told by the budget that is used most; nodata where one is not seen at present, which may be why it looks calm."""
    unseen = ", ".join(one.watch for one in budgets if not one.seen)
    if unseen or not budgets:
        return nodata(f"{f'not seen now: {unseen}' if unseen else 'there is no objective'}{_each(budgets)}", parts=parts)
    worst = max(budgets, key=lambda one: one.used)
    return ok(f"{worst.objective}: {worst.said}{_each(budgets)}", Reading(worst.used, 1.0), parts=parts)


def _each(budgets: Sequence[ErrorBudget]) -> str:
    return "".join(f"\n{one.objective} ({one.watch} for {one.target:.6g} of {one.over.days} d): {one.said}" for one in budgets)
