"""Answers about data and models, from what was looked at. Each says what was seen and over how much time, and no more."""

from __future__ import annotations

from datetime import datetime, timedelta

from agent.audit.known import MOST, Known, among, newest, rule, worst
from agent.audit.scoring import Answer, Said
from agent.model import Status

# Data


@rule(
    "DATA-01",
    earn="watch the rows with data.contract (watchkeeper contract infer writes one)",
    lacks="which inputs of the model it covers, and who approved it",
)
def contract(known: Known) -> Answer | None:
    """The last look of each watch that holds live rows to a contract."""
    return worst(known, "DATA-01")


@rule(
    "DATA-03",
    earn="give data.contract `freshness` and `volume`, and keep it running for 28 days",
    lacks="sources upstream of the tables that are bound",
)
def arriving(known: Known) -> Answer | None:
    """The looks of 28 days of the watches that hold rows to a contract: how many found rows late or too few, and whether both have limits."""
    shares, told, since = [], [], known.now - min(timedelta(days=28), known.config.retention.findings)
    for watch, _, _ in known.last("DATA-03"):
        name = watch.name
        if watch.parameters.get("freshness") is None or watch.parameters.get("volume") is None:
            shares.append(0.0)
            told.append(f"{name} has no limit of freshness or none of volume")
            continue
        kept, looks = known.ledger.findings(watch=watch.key, since=since, limit=MOST), known.looks(watch, 28)
        if len(kept) == MOST:
            return None
        bad = sum(one.status is Status.FAIL and bool({"freshness", "volume"} & set(one.parts)) for one in kept)
        shares.append(1 - bad / max(looks.seeing, 1))
        told.append(f"{name}: {looks.seeing - bad} of {looks.seeing} looks inside, {looks.history}")
    if not shares:
        return None
    return Answer(among(min(shares), 0.99, 0.95), known.seen_at, observed="; ".join(told))


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
    return Answer(said, min(one.looked_at for one, _, _ in found), again, kept.version, told)


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
        return Answer("fail", known.seen_at, version=known.served, observed=told)
    if len(findings) < len(pinned) or any(one.version is None for one in findings) or rows < 200:
        return None
    return Answer("pass", known.seen_at, version=known.served, observed=f"{len(pinned)} yardsticks of version {known.served}, {rows} rows or more")


# Model


@rule(
    "MODEL-01", earn="register what is served before it serves, and keep the agent running", lacks="the digest of what is served, and every replica"
)
def registered(known: Known) -> Answer | None:
    """The version that is served and those that the registry was last seen to hold; a missing one counts only where the agent has run since."""
    held = (known.ledger.setting(f"seen/{known.service.name}") or {}).get("registry")
    served = known.ledger.served_now(known.service.name)
    looked = [one.looked_at for watch in known.service.watches if (one := known.ledger.signal(watch.key)) is not None]
    if held is None or served is None or not looked or (served.version not in held and not _watching_since(known, served.since_at)):
        return None
    said: Said = "pass" if served.version in held else "fail"
    told = f"version {served.version} is served, and the registry {'knows it' if said == 'pass' else 'does not know it'}"
    return Answer(said, min(max(looked), known.now), version=served.version, observed=told)


def _watching_since(known: Known, at: datetime) -> bool:
    """Whether the agent has been running for five minutes after a moment, so that it has seen everything that can change again."""
    newest = next(iter(known.ledger.events("agent", limit=1)), None)
    return newest is not None and newest.kind == "agent.start" and known.seen_at - max(newest.at, at) > timedelta(minutes=5)


@rule("MODEL-07", earn="set `slices` and a limit on quality.accuracy", lacks="slices of too few rows, which are left out")
def slices(known: Known) -> Answer | None:
    """The last look of the watches of quality that judge slices: a slice surely below its limit fails."""
    if not any(watch.parameters.get("slices") for watch in known.watching("MODEL-07")):
        return Answer("fail", known.seen_at, observed="no watch of quality declares slices")
    found = [(s, kept) for watch, s, kept in known.last("MODEL-07") if watch.parameters.get("slices")]
    judged = [name for _, kept in found for name in kept.parts if name.startswith("slice.")]
    if not judged:
        return None
    bad = any(signal.status is Status.FAIL for signal, _ in found)
    told = f"{len(judged)} slices judged; {found[0][1].headline}"
    return Answer("fail" if bad else "pass", min(signal.looked_at for signal, _ in found), version=found[0][1].version, observed=told)


@rule("MODEL-10", earn="watch forgetting.eval with `old` and `guard` rows", lacks="whether what was judged is what is served")
def kept(known: Known) -> Answer | None:
    """The last verdict on what was learned before, slice by slice."""
    return worst(known, "MODEL-10")
