"""The answer about what is promised: objectives, their error budgets, and whether a budget that is used up keeps what is new from its users."""

from __future__ import annotations

from collections.abc import Sequence

from agent.audit.known import Known, rule
from agent.audit.scoring import Answer, Evidence, Said
from agent.model import ErrorBudget, Event
from agent.objectives import MINUTE, budgets

KINDS = {"availability", "latency", "freshness", "quality"}
MONTH = 28  # days


@rule("MON-08", earn="set `objectives:` for availability, latency, freshness and quality, and watch budget.burn; let what is new wait for its budget")
def promised(known: Known) -> Answer | None:
    """The objectives there are, what is used of their budgets, and the versions of 28 days that came while one was used up and were no fix."""
    found = budgets(known.ledger, known.service, known.now)
    if not found:
        return Answer("fail", known.seen_at, observed="no objective is set", evidence=known.configured("objectives"))
    told = "; ".join(f"{one.objective}: {one.said}" for one in found)
    anyway = _anyway(known)
    if anyway:
        return Answer("fail", known.seen_at, observed=f"{anyway[0].what} though a budget was used up; {told}", evidence=(_rests(known),))
    if not any(one.history for one in found):
        return None
    burn = any(watch.check == "budget.burn" for watch in known.service.watches)
    lacks = [f"no objective of {name}" for name in sorted(KINDS - {one.objective for one in found})] + (
        [] if burn else ["budget.burn is not watched"]
    )
    whole = not lacks and not any(one.spent or not one.seen for one in found) and not _short(known, found)
    said: Said = "pass" if whole else "partial"
    return Answer(said, known.seen_at, observed="; ".join([told, *lacks]), evidence=(_rests(known),))


def _short(known: Known, found: Sequence[ErrorBudget]) -> bool:
    """Whether the record of one begins later than what it counts does: its first look comes up to an interval after that."""
    every = {one.name: one.every for one in known.service.objectives}
    return any(one.history + every[one.objective] + MINUTE < one.over for one in found)


def _rests(known: Known) -> Evidence:
    where = f"services.{known.service.name}.objectives"
    return Evidence("config", "config", "self", known.seen_at, "MON-08", "minute roll-ups of their watches", where, known.config.digest)


def _anyway(known: Known) -> list[Event]:
    """Versions that came while a budget was used up, and neither with a run that takes back nor with a fix."""
    return [
        one
        for one in known.events("change.version", MONTH)
        if not _let(known, one) and any(b.spent for b in budgets(known.ledger, known.service, one.at))
    ]


def _let(known: Known, came: Event) -> bool:
    books = known.config.runbooks()
    for run in known.runs:
        if run.wrote and run.wanted_at <= came.at <= (run.ended_at or known.now):
            promotes = run.runbook in books and books[run.runbook].promises.get("promotes")
            return not promotes or bool(known.ledger.events("run.fix", run=run.id, limit=1))
    return False
