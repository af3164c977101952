"""How much of each error budget is used, reckoned from the minutes that are remembered: terms and windows of the SRE workbook (Beyer et al. 2018).

An objective leaves a length of time to be bad: 99.9 % over 28 days leave 40 minutes. That length does not depend on how often anybody looked, so that
looks which were not made, or saw nothing, give nothing back: what was seen to be bad stays used until it is older than `over`. A look stands until
the next one, and no longer than its watch's `every`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from agent.config import Config, Objective, ServiceConfig
from agent.model import ErrorBudget, Json, to_json
from agent.store import Ledger

MINUTE = timedelta(minutes=1)
BURNS = {"5m": timedelta(minutes=5), "30m": timedelta(minutes=30), "1h": timedelta(hours=1), "6h": timedelta(hours=6)}
Stretch = tuple[datetime, datetime, float]  # from, to, and which share of it was bad


def budgets(ledger: Ledger, service: ServiceConfig, now: datetime) -> list[ErrorBudget]:
    """Every objective's budget as of `now`; what came later is not counted."""
    return [_budget(ledger, one, now) for one in service.objectives]


def everywhere(ledger: Ledger, config: Config, now: datetime) -> Iterator[tuple[str, ErrorBudget]]:
    """Every service's budgets."""
    return ((name, one) for name, service in config.services.items() for one in budgets(ledger, service, now))


def _budget(ledger: Ledger, one: Objective, now: datetime) -> ErrorBudget:
    since, stands = now - one.over, max(MINUTE, one.every)
    bad = list(_stretches(ledger, one, since - stands, stands))
    first = ledger.first_look(one.watch, since)
    return ErrorBudget(
        objective=one.name,
        watch=one.watch,
        target=one.target,
        over=one.over,
        bad=bad_for(bad, since, now),
        history=timedelta() if first is None else max(timedelta(), now - first),
        seen=ledger.saw(one.watch, now - 2 * stands - MINUTE, now),
        burns={name: bad_for(bad, now - length, now) / length / (1 - one.target) for name, length in BURNS.items()},
    )


def _stretches(ledger: Ledger, one: Objective, since: datetime, stands: timedelta) -> Iterator[Stretch]:
    for row in ledger.bad_minutes(one.watch, since):
        start, following = row["minute_at"], row["next_at"]
        end = start + stands if following is None else min(following, start + stands)
        yield start, end, min(1.0, row["bad"] / max(row["looks"] - row["blind"], 1))


def bad_for(stretches: Sequence[Stretch], since: datetime, until: datetime) -> timedelta:
    """How long was bad between two times."""
    return sum((share * max(timedelta(), min(end, until) - max(start, since)) for start, end, share in stretches), timedelta())


def told(ledger: Ledger, service: ServiceConfig, now: datetime) -> list[dict[str, Json]]:
    """Every budget as JSON values: lengths in seconds, shares of 1."""
    return [{**to_json(one), **_more(one)} for one in budgets(ledger, service, now)]


def _more(one: ErrorBudget) -> dict[str, Json]:
    gone = None if one.gone_in is None else to_json(one.gone_in)
    return {"whole": to_json(one.whole), "used": one.used, "spent": one.spent, "burning": one.burning(), "gone_in": gone, "said": one.said}
