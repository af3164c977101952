"""The five questions that Sculley et al. (2015, section 9) ask of a system's debt, as far as the record answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from agent.audit.known import Known
from agent.model import Finding

QUARTER, WEEK = timedelta(days=90), timedelta(days=7)
RELEASES = 5
SURE = 1.96 + 0.84  # of the normal distribution: two-sided 5 %, power 80 %
MOST = 1000
Told = tuple[str | None, str]  # the answer, where there is one, and what it rests on, or why there is none


def questions(known: Known) -> list[dict[str, str | None]]:
    """Each with its answer, None where the record does not have it, and what that rests on."""
    asked = (
        ("How easily can a new approach be tested at full scale?", _tested(known)),
        ("What is the whole of what the data depend on?", _depends(known)),
        ("How precisely can the impact of a change be measured?", _measured(known)),
        ("Does improving one part make others worse?", _others(known)),
        ("How soon is a new member productive?", (None, "first commits are not read; TEAM-04 tells who has run what")),
    )
    return [{"question": question, "answer": answer, "why": why} for question, (answer, why) in asked]


def _tested(known: Known) -> Told:
    """From when a run that tries a version was wanted to its end, the median of 90 days."""
    tried = sorted(
        (run.ended_at - run.wanted_at).total_seconds() / 3600
        for run in known.runs
        if run.runbook in ("canary", "shadow") and run.state == "succeeded" and run.ended_at and run.wanted_at >= known.now - QUARTER
    )
    if not tried:
        return None, "no canary and no shadow run succeeded in 90 days"
    return f"{tried[len(tried) // 2]:.1f} h from asking to a result on real traffic", f"median of {len(tried)} runs in 90 days"


def _depends(known: Known) -> Told:
    sources = sorted({f"{role} ({at.scheme})" for role, at in known.service.targets.items()})
    if not sources:
        return None, "no source is attached"
    return f"at least {len(sources)}: {', '.join(sources)}", "what stands behind these is not walked here; see DATA-05"


def _measured(known: Known) -> Told:
    """The smallest change of a share that a week of judged rows, half of each version, would show (normal approximation)."""
    best: tuple[int, str] | None = None
    for watch, _, kept in known.last("MON-05"):
        rows = sum(one.reading.n or 0 for one in known.ledger.findings(watch=watch.key, since=known.now - WEEK, limit=MOST) if one.reading)
        share = kept.reading.observed if kept.reading else None
        if share is not None and 0 < share < 1 and rows > 1:
            points = 100 * SURE * (4 * share * (1 - share) / rows) ** 0.5
            best = max(best or (0, ""), (rows, f"a change of {points:.2g} points in {watch.name}"))
    if best is None:
        return None, "no watch judges a share of labelled rows"
    return best[1], f"{best[0]:,} rows were judged in 7 days; two-sided 5 %, power 80 %"


def _others(known: Known) -> Told:
    """Slices that fell while the whole rose, over the last changes of version."""
    pairs = [pair for watch, _, _ in known.last("MODEL-07") for pair in _releases(known, watch.key)]
    if not pairs:
        return None, "no two versions were judged by slices"
    fell = sorted({f"{name} at {new.version}" for old, new in pairs for name in _fell(old, new)})
    return f"{len(fell)} slices fell while the whole rose{': ' if fell else ''}{', '.join(fell[:5])}", f"over {len(pairs)} changes of version"


def _releases(known: Known, watch: str) -> Sequence[tuple[Finding, Finding]]:
    """The newest finding of each version beside that of the version before it."""
    newest: dict[str, Finding] = {}
    for one in known.ledger.findings(watch=watch, limit=MOST):
        if one.version and one.reading and one.reading.observed is not None:
            newest.setdefault(one.version, one)
    found = list(newest.values())[: RELEASES + 1]
    return list(zip(found[1:], found, strict=False))


def _fell(old: Finding, new: Finding) -> Iterator[str]:
    if (_value(new.reading) or 0.0) <= (_value(old.reading) or 0.0):
        return
    for name, part in new.parts.items():
        was, now = _value(old.parts.get(name)), _value(part)
        if name.startswith("slice.") and was is not None and now is not None and now < was:
            yield name


def _value(reading: object) -> float | None:
    return getattr(reading, "observed", None)
