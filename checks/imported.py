"""Reports of other drift tools as findings: what they called is told and kept in the record, with their own scores and thresholds; and the profiles
that one of them leaves, judged here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agent import Document, Json, Reading, Reports, Verdict, check, fail, nodata, ok, spell, to_json, warn
from agent.errors import DataError
from checks import _profiles, _reports
from checks._comparison import How, judged, lines, verdict
from checks._reports import Column, Report

PARTS = 200  # columns kept as parts, the drifted first; imported.json has them all
EVIDENTLY_SHARE = 0.5  # Evidently's own default


@check(pillar="monitoring", asks="Did Evidently call drift in its newest report?", cause="drift")
def evidently(report: Reports, now: datetime, *, freshness: timedelta = timedelta(days=1), share: float | None = None) -> Verdict:
    """Fails when at least `share` of the columns drifted by Evidently's own call; by default the share that the report was made with.

    Each column is a part: its score beside its threshold, with the method as the unit. A report older than `freshness`, or none, is nodata.
    Drift of fewer columns is told and is ok, as it is to Evidently. A column whose call cannot be told makes an ok verdict a warning.
    """
    return _imported(report.newest(), now, freshness, share, _reports.evidently, "Evidently")


@check(pillar="monitoring", asks="Did whylogs call drift between its newest profiles?", cause="drift")
def whylogs(report: Reports, now: datetime, *, freshness: timedelta = timedelta(days=1), share: float | None = None) -> Verdict:
    """Fails when at least `share` of the columns is in whylogs' category DRIFT; by default as soon as one is. POSSIBLE_DRIFT is a warning.

    Reads the JSON of `calculate_drift_scores`; binary profiles are for `imported.profiles`. A report older than `freshness`, or none, is nodata.
    """
    return _imported(report.newest(), now, freshness, share, _reports.whylogs, "whylogs")


@check(pillar="monitoring", asks="Does whylogs' newest profile still follow the reference profile?", cause="drift")
def profiles(
    report: Reports,
    now: datetime,
    *,
    freshness: timedelta = timedelta(days=1),
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    false_discovery: float = 0.05,
    floor_number: float = 0.1,
    floor_category: float = 0.1,
    floor_nulls: float = 0.02,
    rows_at_least: int = 100,
) -> Verdict:
    """Judges two binary profiles as drift.compare judges two tables: fails when a column differs, adjusted over all comparisons, and surely by more
    than its floor.

    Numbers are compared by what their KLL sketches keep, the error of the sketches added to the interval; text, booleans and what `nominal` names by
    the counts of values, where the profile holds them all; nulls by their shares. Each side's counts, types, mean, deviation and quantiles are in
    profiles.json. A profile older than `freshness`, or none, is nodata.
    """
    found = report.newest()
    if found is None or now - found.written_at > freshness:
        return _unseen(found, now, freshness)
    body, how = _pair(found), How(floor_number, floor_category, floor_nulls, max(1, rows_at_least), nominal or (), describe=False)
    ours, theirs = body["profile"], body["reference"]
    names = _profiles.wanted(ours, theirs, columns)
    parts = [one for name in names for one in _profiles.compared(name, ours.get(name), theirs.get(name), how)]
    result = judged(parts, false_discovery, floor_number + _profiles.reach(ours, theirs))
    told = verdict(result, f"{_profiles.rows(ours)} rows against {_profiles.rows(theirs)}")
    sides = {name: {"now": _profiles.described(ours.get(name)), "reference": _profiles.described(theirs.get(name))} for name in names}
    file = json.dumps({"comparisons": lines(result), "not_compared": to_json(result.notes), "columns": sides}, indent=1).encode()
    where = f"whylogs' {found.name}, {_age(found, now)} old, against {body['name']}"
    return replace(told, reason=f"{told.reason}\n{where}", parts=dict(list(told.parts.items())[:PARTS]), data={"profiles.json": file})


def _unseen(found: Document | None, now: datetime, freshness: timedelta) -> Verdict:
    if found is None:
        return nodata("no report yet")
    reading = Reading((now - found.written_at).total_seconds(), freshness.total_seconds(), unit="s")
    return nodata(f"{found.name} is {_age(found, now)} old (limit {spell(freshness)})", reading)


def _age(found: Document, now: datetime) -> str:
    return spell(max(now - found.written_at, timedelta()))


def _pair(found: Document) -> Mapping[str, Json]:
    if not isinstance(found.body, Mapping) or not {"profile", "reference", "name"} <= set(found.body):
        raise DataError(f"{found.name} is no profile with a reference: bind `report` to whylogs:PATTERN with `reference:`")
    return found.body


def _imported(found: Document | None, now: datetime, freshness: timedelta, share: float | None, read: Callable[[Json], Report], tool: str) -> Verdict:
    if found is None or now - found.written_at > freshness:
        return _unseen(found, now, freshness)
    try:
        report = read(found.body)
    except DataError as problem:
        raise DataError(f"{found.name} is no drift report of {tool}: {problem}") from problem
    return _verdict(report, share, f"{tool}'s {found.name}, {_age(found, now)} old", tool)


def _verdict(report: Report, share: float | None, where: str, tool: str) -> Verdict:
    judged = [one for one in report.columns if one.drifted is not None]
    unknown = [one for one in report.columns if one.drifted is None]
    drifted = [one for one in judged if one.drifted]
    file = json.dumps({"columns": to_json(report.columns), "share": report.share}, indent=1).encode()
    worst = sorted(report.columns, key=lambda one: (not one.drifted, not one.perhaps, one.drifted is None))[:PARTS]
    parts = {_named(one, report.columns): Reading(one.score, one.threshold, unit=one.how) for one in worst}
    if not judged:
        return nodata(f"{where} says of none of {len(unknown)} columns whether it drifted", parts=parts, data={"imported.json": file})
    limit = share if share is not None else report.share if report.share is not None else EVIDENTLY_SHARE if tool == "Evidently" else 1 / len(judged)
    reading = Reading(len(drifted) / len(judged), limit, n=len(judged), unit="share of columns")
    said = f"{len(drifted)} of {len(judged)} columns drifted{_told(drifted)} in {where}{_untold(unknown)}"
    if drifted and len(drifted) >= limit * len(judged) * (1 - 1e-12):  # 1/n of n columns is one, whatever the arithmetic makes of it
        return fail(said, reading, parts=parts, data={"imported.json": file})
    doubtful = [one for one in judged if one.perhaps]
    more = f"; perhaps {', '.join(one.name for one in doubtful[:3])}" if doubtful else ""
    return (warn if unknown or doubtful else ok)(f"{said}{more}", reading, parts=parts, data={"imported.json": file})


def _named(one: Column, among: Sequence[Column]) -> str:
    """The column; with its method where a report has tested it by several."""
    return one.name if sum(other.name == one.name for other in among) == 1 else f"{one.name} ({one.how})"


def _told(drifted: Sequence[Column]) -> str:
    if not drifted:
        return ""
    words = [f"{one.name} ({one.how} {one.score:.3g}, limit {one.threshold})" for one in drifted[:3]]
    return f": {', '.join(words)}" + (f" and {len(drifted) - 3} more" if len(drifted) > 3 else "")


def _untold(unknown: Sequence[Column]) -> str:
    if not unknown:
        return ""
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    return f"; it does not say whether {', '.join(one.name for one in unknown[:3])}{more} did"
