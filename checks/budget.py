"""Error budgets: are what is promised and what is kept parting too fast?"""

from __future__ import annotations

from collections.abc import Sequence

from agent import ErrorBudget, Reading, Verdict, check, fail, nodata, ok, warn


@check(pillar="monitoring", asks="Is an error budget being used up faster than people could answer?", exact=True, answers=("MON-08",))
def burn(budgets: Sequence[ErrorBudget], *, fast: float = 14.4, slow: float = 6.0) -> Verdict:
    """No budget burns `fast` times as fast as it lasts over the last 1h and 5m, or `slow` times over 6h and 30m.

    Windows and rates are those of the SRE workbook (Beyer et al. 2018, chapter 5). A fail tells how much is used and when it is gone; a budget that
    is used up, and burns no more, is a warning; one that is not seen at present, and does not burn by what was seen, is nodata.
    """
    burning = {one.objective: why for one in budgets if (why := one.burning(fast, slow))}
    parts = {name: reading for one in budgets for name, reading in _parts(one, fast, slow)}
    rest = "".join(f"\n{one.objective} ({one.watch} for {one.target:.6g} of {one.over.days} d): {one.said}" for one in budgets)
    if burning:
        first = next(one for one in budgets if one.objective in burning)
        more = f" (and {', '.join(list(burning)[1:])})" if len(burning) > 1 else ""
        return fail(f"{first.objective} burns {burning[first.objective]}{more}: {first.said}{rest}", parts[first.objective], parts=parts)
    worst = max(budgets, key=lambda one: one.used, default=None)
    if worst is None or not all(one.seen for one in budgets):
        unseen = ", ".join(one.watch for one in budgets if not one.seen)
        return nodata(f"{f'not seen now: {unseen}' if unseen else 'there is no objective'}{rest}", parts=parts)
    if worst.spent:
        return warn(f"{worst.objective} has no budget left, so nothing new is brought in: {worst.said}{rest}", parts[worst.objective], parts=parts)
    return ok(f"{worst.objective}: {worst.said}{rest}", parts[worst.objective], parts=parts)


def _parts(one: ErrorBudget, fast: float, slow: float) -> Sequence[tuple[str, Reading]]:
    limits = {"1h": fast, "5m": fast, "6h": slow, "30m": slow}
    burns = [(f"{one.objective}.burn_{name}", Reading(one.burns[name], limit)) for name, limit in limits.items()]
    return [(one.objective, Reading(one.used, 1.0)), *burns]
