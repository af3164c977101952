"""The evidence of an incident in one file: what the store holds, what the targets say now, and the digest of each part."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import audit
from agent.config import ServiceConfig
from agent.errors import AnswerError, WatchkeeperError
from agent.model import Finding, Incident, Json, Run, to_json
from agent.store import Ledger
from agent.wire import deadline
from agent.world import World

BEFORE = timedelta(hours=1)  # what went before an incident is part of it; without one, what goes in at all
MOST_FINDINGS = 500
MOST_BYTES = 32 * 2**20  # of the files that findings left
ASKING = timedelta(seconds=2)  # for one question to one target
NOTE = "Findings and rows may tell of people: keep this file as you keep the data, and delete it when the incident is done with."


def write(world: World, service: ServiceConfig, run: int, file: Path) -> None:
    """Write the bundle of the incident that a run is about, else of the last hour, for its owner's eyes; it is there whole, or not at all."""
    parts = dict(_parts(world, service, run))
    digests = {name: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)} for name, body in parts.items()}
    manifest = {"service": service.name, "run": run, "made_at": to_json(world.clock()), "config": world.config.digest, "note": NOTE, "parts": digests}
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
                for name, body in {"manifest.json": _json(manifest), **parts}.items():
                    packed.writestr(name, body)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except OSError as problem:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise AnswerError(f"{file} cannot be written: {problem.strerror}; give a folder that the agent may write to (--param to=DIR)") from problem


def _parts(world: World, service: ServiceConfig, number: int) -> Iterator[tuple[str, bytes]]:
    now = world.clock()
    with world.store.read() as ledger:
        run = ledger.run(number)
        incident = ledger.incident(run.incident) if run and run.incident else None
        since = (incident.opened_at if incident else now) - BEFORE
        report = audit.collect(world.config, ledger, [service.name], since, now)
        yield "report.json", _json(report)
        yield "report.html", audit.page(report).encode()
        if incident:
            yield "incident.json", _json({**to_json(incident), "events": to_json(ledger.events(incident=incident.id, limit=audit.MOST)[::-1])})
        yield "events.json", _json([to_json(event) for event in ledger.events(service=service.name, since=since, limit=audit.MOST)[::-1]])
        yield "runs.json", _json([to_json(one) for one in _runs(ledger, service, incident, run)])
        yield from _findings(ledger, [one for one in ledger.findings(service=service.name, limit=MOST_FINDINGS) if one.looked_at >= since])
    yield "config.json", _json({"digest": world.config.digest, "service": world.config.describe()["services"][service.name]})
    yield "targets.json", _json(_targets(world, service))


def _runs(ledger: Ledger, service: ServiceConfig, incident: Incident | None, own: Run | None) -> list[Run]:
    found = [run for run in ledger.runs(service=service.name, limit=1000) if incident and run.incident == incident.id]
    return found or ([own] if own else [])


def _findings(ledger: Ledger, found: list[Finding]) -> Iterator[tuple[str, bytes]]:
    """Findings, and their files as long as there is room for them; which were left out is said."""
    room, left = MOST_BYTES, []
    for finding in found:
        for name, body in ledger.files(finding.id).items():
            room -= len(body)
            if room >= 0:
                yield f"findings/{finding.id}/{Path(name).name}", body
            else:
                left.append(f"{finding.id}/{name}")
    yield "findings.json", _json({"findings": to_json(found[::-1]), "files_left_out": left})


def _targets(world: World, service: ServiceConfig) -> dict[str, Json]:
    """What the targets say of themselves now; what one of them does not say is told as the reason why."""
    asks: Mapping[str, Mapping[str, Callable[[Any], Json]]] = {
        "router": {"served": lambda a: to_json(a.served())},
        "server": {"ready": lambda a: a.ready(), "version": lambda a: a.version(), "signature": lambda a: to_json(a.signature())},
        "registry": {"versions": lambda a: to_json(list(a.versions()))},
        "data": {"version": lambda a: a.point.read(), "versions": lambda a: list(a.versions())},
    }
    return {role: {what: _asked(world, service, role, ask) for what, ask in of.items()} for role, of in asks.items() if role in service.targets}


def _asked(world: World, service: ServiceConfig, role: str, ask: Callable[[Any], Json]) -> Json:
    try:
        with deadline(ASKING), world.connections(service.targets[role]) as adapter:
            return ask(adapter)
    except WatchkeeperError as problem:
        return {"not told": str(problem)}


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str).encode("utf-8", "replace")
