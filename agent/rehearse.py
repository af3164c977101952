"""Runs the tests of a file: rows are made, the past is replayed over them, and what came of it is compared with what was expected."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from pathlib import Path

from agent import series
from agent.cases import Case, Cases, Expected, Given, Open, stops, targets
from agent.model import Json, Locator, spell
from agent.replay import FOLDER, over, replay, scratch, unreplayable
from agent.store import Ledger
from agent.workers import Pool
from agent.world import World


@dataclass(frozen=True, slots=True)
class Missed:
    """One expectation that did not hold."""

    at: timedelta
    what: str
    expected: Json
    got: Json


def rehearse(cases: Cases, pool: Pool) -> Iterator[Json]:
    """One result for each test of a file, as JSON: its name, and what was missed."""
    for case in cases.tests:
        missed = _run(cases, case, pool)
        told = [{"at": spell(one.at) if one.at else "0s", "what": one.what, "expected": one.expected, "got": one.got} for one in missed]
        yield {"file": str(cases.path), "name": case.name, "ok": not missed, "missed": told}


def _run(cases: Cases, case: Case, pool: Pool) -> list[Missed]:
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder:
        config = over(cases.config, list(_tables(cases, case, Path(folder))), splay=False)
        with scratch(config, pool=pool) as world:
            return list(_compared(world, case))


def _compared(world: World, case: Case) -> Iterator[Missed]:
    keys = [key for key, w in world.watched.items() if not unreplayable(w) and (case.watches is None or key in case.watches)]
    first = case.begin.astimezone(UTC) + timedelta(microseconds=1)  # a slot at the very beginning would judge what came before it
    due = list(stops(case))
    end = due[-1][0].astimezone(UTC)
    at = {moment.astimezone(UTC) for moment, _ in due}
    for seen in replay(world, [(key, first, end) for key in keys], sorted(at)):
        if seen.w is None:
            for moment, one in due:
                if moment == seen.at:
                    with world.store.read() as ledger:
                        yield from _missed(world, ledger, one)


# The configuration, looking at the rows of the test


def _tables(cases: Cases, case: Case, folder: Path) -> Iterator[tuple[Locator, Locator]]:
    """Each table the test gives, and what stands in for it."""
    known = targets(cases.config)
    for place, (name, given) in enumerate(case.tables.items()):
        at = known[name]
        if given.url is not None:
            yield at, replace(at, url=given.url, folder=str(cases.folder))
        else:
            yield at, replace(at, url=series.write(folder / f"{place}.db", _rows(given, at, case)), folder=str(folder))


def _rows(given: Given, at: Locator, case: Case) -> list[dict[str, Json]]:
    begin = case.begin.astimezone(UTC)
    if given.rows is not None:
        return series.dated(given.rows, at.options, begin)
    return series.rows(given.series or {}, at.options, begin, given.every)


# What came of it


def _missed(world: World, ledger: Ledger, one: Expected) -> Iterator[Missed]:
    for key, expected in one.watches.items():
        status, said = _status(world, key)
        if status != expected:
            yield Missed(one.at, f"watch {key}", expected, f"{status}: {said}" if said else status)
    if one.incidents is not None:
        yield from _incidents(ledger, one.at, one.incidents)
    letters = sorted((letter for letter in ledger.letters(limit=1_000_000) if letter["state"] == "waiting"), key=lambda letter: letter["id"])
    for channel, words in one.told.items():
        heard = [letter["key"].split("/", 1)[1] for letter in letters if letter["channel"] == channel]
        if heard != words:
            yield Missed(one.at, f"told {channel}", words, heard)
    for service, names in one.runs.items():
        wanted = [run.runbook for run in reversed(ledger.runs(service=service, limit=1_000_000))]
        if wanted != names:
            yield Missed(one.at, f"runs of {service}", names, wanted)


def _status(world: World, key: str) -> tuple[str, str]:
    why = unreplayable(world.find(key))
    if why:
        return "none", f"cannot be replayed: {why}"
    signal = world.store.signal(key)
    return ("none", "it was not looked at yet") if signal is None else (signal.status.value, signal.reason)


def _incidents(ledger: Ledger, at: timedelta, expected: list[Open]) -> Iterator[Missed]:
    """Each expected incident is open, once; and no other is."""
    got = [
        {"service": i.service, "severity": i.severity, "watches": sorted(m.watch.split("/", 1)[1] for m in i.members if m.cleared_at is None)}
        for i in reversed(ledger.incidents(open_only=True))
    ]
    left = list(got)
    for one in expected:
        found = next((there for there in left if _is(one, there)), None)
        if found is None:
            yield Missed(at, "open incidents", [incident.model_dump(exclude_none=True) for incident in expected], got)
            return
        left.remove(found)
    if left:
        yield Missed(at, "open incidents", [incident.model_dump(exclude_none=True) for incident in expected], got)


def _is(one: Open, there: Mapping[str, Json]) -> bool:
    watches = None if one.watches is None else sorted(name.removeprefix(f"{one.service}/") for name in one.watches)
    return one.service == there["service"] and one.severity in (None, there["severity"]) and watches in (None, there["watches"])
