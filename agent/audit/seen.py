"""Answers about data and models, from what was looked at. Each says what was seen and over how much time, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from math import prod

from agent import plugins
from agent.audit.known import GRADES, MOST, Known, among, features_of, newest, rule, worst
from agent.audit.scoring import Answer, Said
from agent.config import WatchConfig
from agent.model import Finding, Json, Signal, Status
from agent.world import mode_of, runbook_for

# Data


@rule(
    "DATA-01", earn="watch the rows with data.contract (watchkeeper contract infer writes one), with a rule for every input: `features`, or `columns`"
)
def contract(known: Known) -> Answer | None:
    """The last look of each watch that holds live rows to a contract, and how many of the model's inputs, as its server states them, have a rule."""
    answer = worst(known, "DATA-01")
    if answer is None or answer.said == "fail":
        return answer
    inputs = _inputs((known.ledger.setting(f"seen/{known.service.name}") or {}).get("schema"))
    ruled = {name for watch, _, _ in known.last("DATA-01") for name in _ruled(known, watch)}
    if inputs is None:
        return replace(answer, said="partial", observed=f"{answer.observed}; not seen: how many inputs the model has")
    share = min(1.0, len(ruled) / inputs)
    told = f"{answer.observed}; {len(ruled)} features have a rule, and the model takes {inputs} inputs"
    return replace(answer, said=min(answer.said, among(share, 1.0, 0.8), key=GRADES.index), observed=told)


def _ruled(known: Known, watch: WatchConfig) -> set[str]:
    """The declared features of the rows that a contract has a rule for."""
    names = features_of(known, watch)
    patterns = watch.parameters.get("columns") or {}
    return {name for name in names if watch.parameters.get("features") or any(fnmatchcase(name, pattern) for pattern in patterns)}


def _inputs(schema: Json) -> int | None:
    """How many values one row of the stated inputs has; None where that is not stated."""
    try:
        sizes = [prod(tensor["shape"][1:]) for tensor in schema["inputs"]]
    except (TypeError, KeyError):
        return None
    return sum(sizes) if sizes and all(size > 0 for size in sizes) else None


CONTRACT = ("columns", "features", "pairs", "unique")  # what of a contract faults in rows are judged by


@rule("DATA-02", earn="watch injection.faults with the contract of your rows, and let quarantine answer a broken one (mode: auto, after a drill)")
def stopped(known: Known) -> Answer | None:
    """The last look at whether faults that are put into a copy of the rows break a contract, which must be the one that is watched; and whether a
    broken one starts a runbook by itself.
    """
    answer, contracts = worst(known, "DATA-02"), known.watching("DATA-01")
    if answer is None or answer.said == "fail":
        return answer
    asked = [watch.parameters for watch, _, _ in known.last("DATA-02")]
    watched = [watch.parameters for watch in contracts]
    other = not all(any(all(one.get(key) == two.get(key) for key in CONTRACT) for two in watched) for one in asked)
    book = (
        runbook_for(known.config, known.service, str(plugins.listing("check")[contracts[0].check].promises.get("cause", ""))) if contracts else None
    )
    lacking = [
        *(["the contract they break is not the one that is watched"] if other else []),
        *([f"a broken contract stops nothing by itself{f': {book} is not in mode auto' if book else ''}"] if _waits(known, book) else []),
    ]
    if not lacking:
        return replace(answer, observed=f"{answer.observed}; a broken contract starts {book} by itself")
    return replace(answer, said="partial", observed=f"{answer.observed}; {'; '.join(lacking)}")


def _waits(known: Known, book: str | None) -> bool:
    return book is None or mode_of(known.service, book) != "auto"


@rule(
    "DATA-03",
    earn="give data.contract `freshness` and `volume`, and keep it running for 28 days",
    lacks="sources upstream of the tables that are bound",
)
def arriving(known: Known) -> Answer | None:
    """The looks of 28 days of the watches that hold rows to a contract: how many found rows late or too few, and whether both have limits."""
    shares, told, evidence, since = [], [], [], known.now - min(timedelta(days=28), known.config.retention.findings)
    for watch, _, newest_one in known.last("DATA-03"):
        name = watch.name
        evidence.append(newest_one)
        if watch.parameters.get("freshness") is None or watch.parameters.get("volume") is None:
            shares.append(0.0)
            told.append(f"{name} has no limit of freshness or none of volume")
            continue
        kept, looks = known.ledger.findings(watch=watch.key, since=since, limit=MOST), known.looks(watch, 28)
        if len(kept) == MOST:
            return None
        bad = [one for one in kept if one.status is Status.FAIL and {"freshness", "volume"} & set(one.parts)]
        evidence += bad
        shares.append(1 - len(bad) / max(looks.seeing, 1))
        told.append(f"{name}: {looks.seeing - len(bad)} of {looks.seeing} looks inside, {looks.history}")
    if not shares:
        return None
    return Answer(among(min(shares), 0.99, 0.95), known.seen_at, observed="; ".join(told), evidence=known.rests(*evidence))


@rule("DATA-06", earn="watch skew.features or skew.logged with a sample of 200 or more")
def skew(known: Known) -> Answer | None:
    """The last look of each watch of skew: the share of wrong values of every feature. Their sum bounds the share of wrong rows from above."""
    found = newest(known, "DATA-06")
    if not found:
        return None
    shares = [[one for name, one in kept.parts.items() if not name.endswith(".late")] for _, kept, _ in found]
    worst = max((one.observed or 0.0 for part in shares for one in part), default=1.0)
    rows = max((sum(one.observed or 0.0 for one in part) for part in shares), default=1.0)
    least = min((one.n or 0 for part in shares for one in part), default=0)
    signal, kept, again = found[0]
    whole = rows <= 0.001 and worst <= 0.01 and least >= 200 and signal.status is Status.OK
    half = rows <= 0.01 and worst <= 0.05
    told = f"worst feature wrong in {worst:.2%}, rows wrong in at most {min(rows, 1.0):.2%}, {least} compared; {signal.status.value}"
    if signal.status is not Status.FAIL and half and least < 30:
        return None
    said: Said = "pass" if whole else "partial" if half and signal.status is not Status.FAIL else "fail"
    rested = known.rests(*(one for _, one, _ in found))
    return Answer(said, min(one.looked_at for one, _, _ in found), again, kept.version, told, evidence=rested)


@rule("DATA-07", earn="pin a finding of the version that serves: watchkeeper baseline pin --finding NUMBER", lacks="the digest of what is served")
def yardstick(known: Known) -> Answer | None:
    """The yardsticks pinned for the watches of drift: which version served when each was judged, and how many rows it holds."""
    keys = {watch.key for item in ("MON-03", "MON-04") for watch in known.watching(item)}
    pinned = [one for key in known.ledger.baselines() if key in keys and (one := known.ledger.baseline(key)) is not None]
    if not pinned or known.served is None:
        return None
    findings = [one.finding for one in pinned if one.finding is not None]
    other = sorted({one.version for one in findings if one.version not in (None, known.served)}, key=str)
    rows = min(((one.reading.n if one.reading else None) or 0 for one in findings), default=0)
    if other:
        told = f"a yardstick is of version {', '.join(map(str, other))}, and {known.served} is served"
        return Answer("fail", known.seen_at, version=known.served, observed=told, evidence=known.rests(*findings))
    if len(findings) < len(pinned) or any(one.version is None for one in findings) or rows < 200:
        return None
    told = f"{len(pinned)} yardsticks of version {known.served}, {rows} rows or more"
    return Answer("pass", known.seen_at, version=known.served, observed=told, evidence=known.rests(*findings))


# Model


@rule("MODEL-01", earn="register what is served with golden rows before it serves, and watch serving.parity for 7 days")
def registered(known: Known) -> Answer | None:
    """Whether the registry holds the version that is served, and whether in every look of 7 days the server answered the golden rows that are sealed
    there as the registered artefact did. A missing version counts only where the agent has run since. Replicas behind one address are met by chance.
    """
    held = (known.ledger.setting(f"seen/{known.service.name}") or {}).get("registry")
    served = known.ledger.served_now(known.service.name)
    looked = [one.looked_at for watch in known.service.watches if (one := known.ledger.signal(watch.key)) is not None]
    if held is None or served is None or not looked or (served.version not in held and not _watching_since(known, served.since_at)):
        return None
    at, found = min(max(looked), known.now), known.last("MODEL-01")
    rested = known.rests(*(kept for _, _, kept in found), *known.events("change.version", 7), *known.events("change.registry", 7))
    if served.version not in held:
        told = f"version {served.version} is served, and the registry does not know it"
        return Answer("fail", at, version=served.version, observed=told, evidence=rested)
    said, same = _same(known, found)
    told = f"version {served.version} is served, and the registry knows it; {same}"
    return Answer(said, at, version=served.version, observed=told, evidence=rested)


def _same(known: Known, found: Sequence[tuple[WatchConfig, Signal, Finding]]) -> tuple[Said, str]:
    """Whether what answers is what was registered, by its answers to golden rows."""
    if not found:
        return "partial", "not seen: whether it answers as the registered artefact does"
    if any(signal.status is Status.FAIL for _, signal, _ in found):
        return "fail", f"it answers otherwise than was registered: {found[0][2].headline}"
    looks = [known.looks(watch, 7) for watch, _, _ in found]
    good, seeing = sum(one.good for one in looks), sum(one.seeing for one in looks)
    whole = good == seeing and all(one.whole for one in looks)
    told = f"it answered its golden rows as registered in {good} of {seeing} looks, {min(looks, key=lambda one: one.length).history}"
    return ("pass" if whole else "partial"), told


def _watching_since(known: Known, at: datetime) -> bool:
    """Whether the agent has been running for five minutes after a moment, so that it has seen everything that can change again."""
    newest = next(iter(known.ledger.events("agent", limit=1)), None)
    return newest is not None and newest.kind == "agent.start" and known.seen_at - max(newest.at, at) > timedelta(minutes=5)


@rule("MODEL-07", earn="set `slices` and a limit on quality.accuracy", lacks="slices of too few rows, which are left out")
def slices(known: Known) -> Answer | None:
    """The last look of the watches of quality that judge slices: a slice surely below its limit fails."""
    if not any(watch.parameters.get("slices") for watch in known.watching("MODEL-07")):
        return Answer("fail", known.seen_at, observed="no watch of quality declares slices", evidence=known.configured("watches"))
    found = [(s, kept) for watch, s, kept in known.last("MODEL-07") if watch.parameters.get("slices")]
    judged = [name for _, kept in found for name in kept.parts if name.startswith("slice.")]
    if not judged:
        return None
    bad = any(signal.status is Status.FAIL for signal, _ in found)
    told = f"{len(judged)} slices judged; {found[0][1].headline}"
    at, rested = min(signal.looked_at for signal, _ in found), known.rests(*(kept for _, kept in found))
    return Answer("fail" if bad else "pass", at, version=found[0][1].version, observed=told, evidence=rested)
