"""Answers about people and about the agent itself: who is there, how soon they come, whether an alert reaches them, and whether the record holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil

from agent import plugins
from agent.audit.known import MOST, Known, among, brief, rule
from agent.audit.rests import Thing
from agent.audit.scoring import Answer, Said
from agent.incidents import silenced
from agent.model import Incident, Run
from agent.world import runbook_for

QUARTER, HALF = 90, 180  # days
PROMPT, SLOW, LONG = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)
ENOUGH = 10  # pages, below which their p90 is a guess


@rule("TEAM-01", earn="name `owner:` and `escalation:`, and let each acknowledge or approve: watchkeeper ack NUMBER --by NAME")
def owner(known: Known) -> Answer | None:
    """The owner and those in line after, and who of them was seen to do anything in 90 days: acknowledge, approve, silence."""
    line = dict.fromkeys(name for name in (known.service.owner, *known.service.escalation) if name)  # who stands there twice is one person
    active = [name for name in line if name in {who for who, _ in known.acts(QUARTER)}]
    told = ", ".join(f"{name} ({'seen to act' if name in active else 'never seen to act'})" for name in line) or "nobody"
    both = known.service.owner in active and len(active) > 1
    said: Said = "pass" if both else "partial" if active else "fail"
    words = f"named: {told}{'; no deputy' if len(line) == 1 else ''}; record of {known.history(QUARTER)}"
    acted: list[Thing] = [one for one in known.incidents if one.acknowledged_by in active]
    acted += [run for run in known.runs if set(run.approved_by) & set(active)]
    return Answer(said, known.seen_at, observed=words, evidence=(*known.configured("owner", "escalation"), *known.rests(*acted)))


@rule("TEAM-02", earn="acknowledge pages within 15 minutes: watchkeeper ack NUMBER --by NAME; ten pages are wanted to know")
def answering(known: Known) -> Answer | None:
    """Every page of 90 days: how long until somebody acknowledged it; where nobody did, how long it was there, unless that was within 15 minutes."""
    pages = known.pages(QUARTER)
    waits = sorted(_waited(one, known.now) for one in pages if one.acknowledged_at or _waited(one, known.now) > PROMPT)
    if not waits:
        return None
    p90 = waits[ceil(0.9 * len(waits)) - 1]
    left = [one for one in pages if not one.over and one.acknowledged_at is None and _waited(one, known.now) > LONG]
    few = len(waits) < ENOUGH or known.short(QUARTER)
    said: Said = "fail" if p90 > SLOW or left else "partial" if p90 > PROMPT or few else "pass"
    told = f"p90 of {len(waits)} pages is {brief(p90)}; {len(left)} open for more than a day and not acknowledged; record of {known.history(QUARTER)}"
    return Answer(said, known.seen_at, observed=told, evidence=known.rests(*pages))


def _waited(one: Incident, now: datetime) -> timedelta:
    return (one.acknowledged_at or one.resolved_at or now) - one.opened_at


@rule("TEAM-03", earn="point every cause at a runbook (`causes:`) and drill each: watchkeeper drill RUNBOOK SERVICE")
def runbooks(known: Known) -> Answer | None:
    """The runbook that the cause of each watch that pages leads to, and the last run of each runbook in 90 days. Tickets can wait for somebody to
    think, and are not counted."""
    checks, since = plugins.listing("check"), known.now - timedelta(days=QUARTER)
    alerts = [watch for watch in known.service.watches if watch.severity == "page"]
    linked = [runbook_for(known.config, known.service, str(checks[watch.check].promises.get("cause", ""))) for watch in alerts]
    books = sorted({book for book in linked if book})
    if not linked:
        return None
    last = {book: next((run for run in known.runs if run.runbook == book and not run.active and run.wanted_at >= since), None) for book in books}
    good = [book for book, run in last.items() if run is not None and run.state == "succeeded"]
    with_one = len([book for book in linked if book]) / len(linked)
    run = len(good) / len(books) if books else 0.0
    said = min(among(with_one, 1.0, 0.8), among(run, 1.0, 0.6), key=("fail", "partial", "pass").index)
    told = f"{with_one:.0%} of {len(linked)} watches lead to a runbook; {len(good)} of {len(books)} runbooks ran last with success in 90 d"
    rested = (*known.configured("watches", "causes"), *known.rests(*(run for run in last.values() if run is not None)))
    return Answer(said, known.seen_at, observed=f"{told}; record of {known.history(QUARTER)}", evidence=rested)


@rule("TEAM-04", earn="let a second person run or approve each: watchkeeper drill rollback SERVICE --by NAME")
def two_people(known: Known) -> Answer | None:
    """Different people who ran or approved rollback, who ran or approved retrain, and who acknowledged, in 180 days."""
    acts = list(known.acts(HALF))
    counts = {what: len({who for who, did in acts if did == what}) for what in ("rollback", "retrain", "ack")}
    if not any(counts.values()):
        return None
    enough = [what for what, people in counts.items() if people >= 2]
    told = ", ".join(f"{people} for {what}" for what, people in counts.items())
    said: Said = "pass" if len(enough) == len(counts) else "partial" if enough else "fail"
    acted: list[Thing] = [one for one in known.incidents if one.acknowledged_by]
    acted += [run for run in known.runs if run.runbook in counts and run.approvals]
    return Answer(said, known.seen_at, observed=f"different people: {told}; record of {known.history(HALF)}", evidence=known.rests(*acted))


@rule(
    "TEAM-05",
    earn="look back at each page within 14 days: watchkeeper incidents review NUMBER --by NAME; and put right what paged more than once",
    lacks="the actions that came of reviews, with their owners and days",
)
def learned(known: Known) -> Answer | None:
    """The pages of 90 days that are over: those that nobody reviewed within 14 days, and those from a watch that had paged before."""
    over = [one for one in known.pages(QUARTER) if one.over]
    reviews = {one.incident: one.at for one in known.events("incident.reviewed", QUARTER)}
    due = [one for one in over if _review_due(one) <= known.now or one.id in reviews]
    missed = [one for one in due if one.id not in reviews or reviews[one.id] > _review_due(one)]
    watches = [member.watch for one in known.pages(QUARTER) for member in one.members]
    again = len(watches) - len(set(watches))
    if not due and again <= 1:
        return None  # nothing to look back at yet, and one repeat is half
    said: Said = "pass" if not missed and not again else "partial" if len(missed) + again == 1 else "fail"
    told = f"{len(due) - len(missed)} of {len(due)} pages were reviewed within 14 d; {again} pages came again from a watch that had paged before"
    return Answer(said, known.seen_at, observed=f"{told}; record of {known.history(QUARTER)}", evidence=known.rests(*known.pages(QUARTER)))


def _review_due(one: Incident) -> datetime:
    return (one.resolved_at or one.changed_at) + timedelta(days=14)


# Alerts, and the agent itself


@rule("MON-07", earn="acknowledge the next page within 15 minutes; end silences that last longer than 14 days")
def reaching(known: Known) -> Answer | None:
    """The pages of 90 days: whether their letters went out, how soon the last was acknowledged, how many led to an act; and silences in force."""
    letters: dict[str, set[str]] = {}
    for row in known.ledger.letters(MOST):
        letters.setdefault(str(row["key"]).partition("/")[0], set()).add(row["state"])
    told = [(one, letters[key]) for one in known.pages(QUARTER) if (key := f"incident-{one.id}") in letters]
    pages = [one for one, states in told if "sent" in states or known.now - one.opened_at > PROMPT]
    if not pages:
        return None
    gone = [one for one in pages if "sent" in letters[f"incident-{one.id}"]]
    useful = sum(one.acknowledged_at is not None or _acted(known.runs, one) for one in pages) / len(pages)
    prompt = bool(gone) and gone[0].acknowledged_at is not None and _waited(gone[0], known.now) <= PROMPT
    quiet = _quiet(known)
    whole = prompt and len(gone) == len(pages) and useful >= 0.5 and not quiet and not known.short(QUARTER)
    said: Said = "fail" if not gone or useful < 0.2 else "pass" if whole else "partial"
    words = f"{len(gone)} of {len(pages)} pages delivered, the last {'' if prompt else 'not '}acknowledged within 15 min, {useful:.0%} led to an act"
    told_of = f"{words}; {quiet} silences longer than 14 d; record of {known.history(QUARTER)}"
    return Answer(said, known.seen_at, observed=told_of, evidence=known.rests(*pages))


def _acted(runs: Sequence[Run], one: Incident) -> bool:
    return any(run.incident == one.id and run.wrote for run in runs)


def _quiet(known: Known) -> int:
    """Silences in force that last longer than 14 days and match a watch of the service."""
    long = [one for one in known.ledger.silences(known.now) if one.until_at - one.start_at > timedelta(days=14)]
    return sum(any(silenced(watch.key, [one], known.now) for watch in known.service.watches) for one in long)


@rule(
    "MON-10",
    lacks="a test of the dead man's switch, and an anchor outside",
    earn="set `heartbeat:` to a service that pages when it falls silent",
)
def watched_over(known: Known) -> Answer | None:
    """Whether the chain holds, whether a heartbeat is configured, and the looks of 28 days that were made of those that were due."""
    if not known.intact:
        return Answer("fail", known.now, observed="the chain of evidence does not hold")
    looks = [known.looks(watch, 28) for watch in known.service.watches]
    least = min((one.made for one in looks), default=0.0)
    if known.config.heartbeat is None or least < 0.99:
        return None
    told = f"the chain holds, a heartbeat is configured, and of every watch at least {least:.1%} of the looks that were due were made"
    words = f"{told}; {min(looks, key=lambda one: one.length).history}"
    return Answer(
        "partial", known.seen_at, observed=words, evidence=(*known.configured("watches"), *known.rests(*known.ledger.events("agent", limit=5)))
    )
