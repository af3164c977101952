"""How far a runbook can be trusted on a service: what it would have done, whether that was right, and what the next mode needs.

A run *would have acted* when a failing watch asked for it, it had looked at everything, and the next thing would have been to change something.
It was *right* when its watch came right only once another version was served, or a person ran the same runbook in that incident and it succeeded;
*wrong* when the watch came right with the version unchanged; else it is *undecided*, and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from agent import plugins
from agent.config import Config, ServiceConfig
from agent.drills import HOLDS
from agent.model import Finding, Json, Member, Mode, Run, RunState, Status, to_json
from agent.standing import last_good
from agent.store import Ledger
from agent.world import mode_of

Mark = Literal["right", "wrong", "undecided"]
RUNGS: tuple[Mode, ...] = ("observe", "suggest", "approve", "auto")
LOOKS = 1000  # of a watch, up to when it came right, that are read
AGENT = "watchkeeper"
ASKED: tuple[RunState, ...] = ("awaiting", "expired", "cancelled", "superseded", "refused")
KEPT_BACK: Mapping[Mode, tuple[RunState, ...]] = {  # the states in which a run of a mode was, or is, kept from acting by people alone
    "observe": ("refused",),
    "suggest": ("proposed", *ASKED),
    "approve": ASKED,
    "auto": ("awaiting", "cancelled", "superseded"),  # one that expired or waits would not act on what it knows
}
YEAR = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Judged:
    """What can be said of one run that would have acted, and the finding at which its watch came right."""

    run: int
    mode: Mode
    wanted_at: datetime
    mark: Mark
    why: str
    finding: int | None = None


# The rule, over rows


def would_have(run: Run) -> bool:
    """Whether it had looked at everything and would have gone on to change something, and did not."""
    if run.by != AGENT or run.drill or run.wrote or run.plan is None or run.state not in KEPT_BACK[run.mode]:
        return False
    step = next((row for row in run.steps if not row.undo and row.state not in ("done", "passed over")), None)
    return step is not None and step.action in run.plan.seen


def judge(run: Run, others: Sequence[Run], member: Member | None, looks: Sequence[Finding], served: Callable[[datetime], str | None]) -> Judged:
    """Whether a run that would have acted was right.

    `others` are the runs of its service, `member` its watch in its incident, `looks` the findings of that watch since (oldest first), and `served`
    tells the version at a time.
    """
    by_hand = next((one for one in others if _by_hand(run, one)), None)
    if by_hand is not None:
        return _marked(run, "right", f"{' and '.join(by_hand.approved_by) or by_hand.by} ran it (run {by_hand.id}), and it succeeded")
    was = served(run.wanted_at)
    if member is None or member.cleared_at is None:
        return _marked(run, "undecided", f"{run.trigger} has not come right yet")
    back = came_right(looks, member.cleared_at)
    if back is None:
        return _marked(run, "undecided", f"no look is kept at which {run.trigger} came right")
    then = served(back.looked_at)
    if was is None or then is None:
        return _marked(run, "undecided", "what was served is not known", back.id)
    if was == then:
        return _marked(run, "wrong", f"{run.trigger} came right while version {was} was still served", back.id)
    return _marked(run, "right", f"{run.trigger} came right once version {then} was served, not {was}", back.id)


def came_right(looks: Sequence[Finding], cleared_at: datetime) -> Finding | None:
    """The first of the good looks that ended it; None where it is not kept."""
    back = None
    for look in looks:
        if look.looked_at > cleared_at:
            break
        back = None if look.status in (Status.FAIL, Status.WARN, Status.ERROR) else back or (look if look.status is Status.OK else None)
    return back


def _by_hand(run: Run, other: Run) -> bool:
    same = other.incident is not None and (other.incident, other.runbook) == (run.incident, run.runbook) and other.id != run.id
    return same and not other.drill and other.state == "succeeded" and (other.by != AGENT or bool(other.approved_by))


def _marked(run: Run, mark: Mark, why: str, finding: int | None = None) -> Judged:
    return Judged(run.id, run.mode, run.wanted_at, mark, why, finding)


# The report


def report(config: Config, ledger: Ledger, services: Sequence[str], since: datetime, now: datetime) -> list[Json]:
    """One entry for each runbook that a service could want, has run, or has a mode for."""
    known = config.runbooks()
    found = []
    for name in services:
        service, runs = config.services[name], ledger.runs(service=name, since=since)
        found += [_rung(config, ledger, service, book, runs, now) for book in _books(service, runs, known)]
    return found


def _books(service: ServiceConfig, runs: Sequence[Run], known: Mapping[str, plugins.Plugin]) -> list[str]:
    checks = plugins.listing("check")
    causes = {str(checks[watch.check].promises.get("cause", "")) for watch in service.watches} - {""}
    cured = {name for name, book in known.items() if causes & set(book.promises.get("cures", ()))}
    return sorted({*cured, *filter(None, service.causes.values()), *(set(service.modes) & set(known)), *(run.runbook for run in runs)})


def _rung(config: Config, ledger: Ledger, service: ServiceConfig, book: str, runs: Sequence[Run], now: datetime) -> dict[str, Json]:
    mine = [run for run in runs if run.runbook == book]
    marks = [judged(ledger, run, runs) for run in reversed(mine) if would_have(run)]
    drill, mode = ledger.last_drill(service.name, book), mode_of(service, book)
    drilled_at = drill.ended_at if drill else None
    acted = Counter(run.state for run in mine if run.by == AGENT and run.wrote)
    fresh = drilled_at is not None and now - drilled_at <= HOLDS
    return {
        "service": service.name,
        "runbook": book,
        "mode": mode,
        "drill": None if drill is None or drilled_at is None else {"run": drill.id, "at": to_json(drilled_at), "holds": fresh},
        "record": [_counted(mode, [one for one in marks if one.mode == mode]) for mode in RUNGS if any(one.mode == mode for one in marks)],
        "judged": to_json(marks),
        "acted": dict(acted),
        "declined": sum(run.by == AGENT and run.state == "stopped" and not run.wrote for run in mine),
        "next": _next(config, ledger, service, book, mode, marks, acted["succeeded"], fresh),
    }


def judged(ledger: Ledger, run: Run, others: Sequence[Run]) -> Judged:
    """The rule, with the rows of one run read from the store."""
    incident = ledger.incident(run.incident) if run.incident else None
    member = next((one for one in incident.members if one.watch == run.trigger), None) if incident else None
    until = member.cleared_at if member else None
    looks = ledger.findings(watch=run.trigger, since=run.wanted_at, until=until, limit=LOOKS)[::-1] if run.trigger and until else []

    def served(at: datetime) -> str | None:
        found = ledger.served_at(run.service, at)
        return found.version if found else None

    return judge(run, others, member, looks, served)


def _counted(mode: Mode, marks: Sequence[Judged]) -> dict[str, Json]:
    counts = Counter(one.mark for one in marks)
    return {"mode": mode, "would": len(marks), **{mark: counts[mark] for mark in ("right", "wrong", "undecided")}}


def _next(
    config: Config, ledger: Ledger, service: ServiceConfig, book: str, mode: Mode, marks: Sequence[Judged], acted: int, drilled: bool
) -> dict[str, Json] | None:
    """The next mode, and what speaks for and against it; None at the top. Watchkeeper itself insists on the drill alone."""
    if mode == RUNGS[-1]:
        return None
    to, right = RUNGS[RUNGS.index(mode) + 1], sum(one.mark == "right" for one in marks)
    wrong = [one.run for one in marks if one.mark == "wrong"]
    needs = [("a run that was right, or that acted and succeeded", right + acted > 0), (f"no run that was wrong{_named(wrong)}", not wrong)]
    needs.append(("somebody who is told", bool(config.party(service.name).channels)))
    plugin = config.runbooks().get(book)
    if plugin and any(need.name == "good" for need in plugin.needs):
        served = ledger.served_now(service.name)
        needs.append(("a version to go back to", last_good(ledger, service.name, served.version if served else None) is not None))
    if to == "auto":
        needs.append((f"a drill that succeeded within {HOLDS.days} days", drilled))
    return {"mode": to, "needs": [{"what": what, "met": met} for what, met in needs]}


def _named(runs: Sequence[int]) -> str:
    return f" (run {', '.join(map(str, runs))})" if runs else ""


def sentence(counted: dict[str, Json]) -> str:
    """A line of the record in words."""
    times, right = counted["would"], counted["right"]
    rest = "".join(f", {counted[mark]} {mark}" for mark in ("wrong", "undecided") if counted[mark])
    return f"in {counted['mode']} it would have acted {times} time{'' if times == 1 else 's'}; {right} {'was' if right == 1 else 'were'} right{rest}"
