"""What the gaps have cost: incidents and work by hand of the last 90 days, told of the failures and the debts they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from agent import plugins
from agent.audit.catalogue import Catalogue, catalogue
from agent.audit.known import Known
from agent.model import Incident, Run

DAYS, WEEKS = 90, 13
BY_HAND = "person."  # actions that are a person's to do


@dataclass(frozen=True, slots=True)
class Hurt:
    """Incidents by failure mode, and hours a week by type of debt. What no question stands for is in `elsewhere`, hours a week too."""

    incidents: Mapping[str, int] = field(default_factory=dict)
    interest: Mapping[str, float] = field(default_factory=dict)
    elsewhere: float = 0.0


def hurt(known: Known) -> Hurt:
    """Each incident of the service belongs to the questions that its watches answer.

    Its hours, until it was resolved, and those that people worked in its runs, go in equal parts to the debts those questions stand for.
    """
    failures: Counter[str] = Counter()
    interest: Counter[str] = Counter()
    for one in known.incidents:
        if one.opened_at < known.now - timedelta(days=DAYS):
            continue
        items, hours = _items(catalogue(), one), _hours(known, one)
        failures.update({failure for item in items for failure in catalogue().items[item].failures})
        debts = sorted({kind for item in items for kind in catalogue().items[item].debt}) or [""]
        interest.update({kind: hours / WEEKS / len(debts) for kind in debts})
    return Hurt(dict(failures), {kind: hours for kind, hours in interest.items() if kind}, interest[""])


def _items(catalogue: Catalogue, one: Incident) -> set[str]:
    """The questions that the checks of an incident answer."""
    checks = plugins.listing("check")
    answered = (checks[member.check].promises.get("answers", ()) for member in one.members if member.check in checks)
    return {item for items in answered for item in items if item in catalogue.items}


def _hours(known: Known, one: Incident) -> float:
    lasted = (one.resolved_at or known.now) - one.opened_at
    worked = sum((_by_hand(run) for run in known.runs if run.incident == one.id), timedelta())
    return (lasted + worked).total_seconds() / 3600


def _by_hand(run: Run) -> timedelta:
    steps = (step for step in run.steps if step.action.startswith(BY_HAND))
    return sum((step.ended_at - step.intended_at for step in steps if step.intended_at and step.ended_at), timedelta())


def interest_first(index: Mapping[str, float], found: Hurt) -> Sequence[str]:
    """The order in which to pay debts down: by what they cost, then by their size. Debt that costs nothing may wait."""
    return sorted(index, key=lambda kind: (-found.interest.get(kind, 0.0), -index[kind], kind))
