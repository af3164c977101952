"""One look of a check that decides whether a run goes on: at what an earlier step made, if need be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from agent.actions.hold import fitting, temporary
from agent.actions.looks import Looking
from agent.errors import PlanError
from agent.look import look
from agent.model import Done, Failed, Finding, Json, Locator, Look, Status, Try, Unknown, Verdict, Window
from agent.observe import found, keep_apart
from agent.plugins import MODELS
from agent.store import Ledger
from agent.targets import at as named
from agent.world import Known, Watched

LOOKS = 3  # at what cannot be seen


@dataclass(frozen=True, slots=True)
class Judge(Looking):
    """`check.judge {check, with, bind}`: one look. ok: the step is done; fail, warn, nodata and skip: it has failed; error: looked at again, twice.

    `bind` binds roles to files that earlier steps made: {role: {path, sha256}}, {role: {folder, file, files}} with digests by name, or {role: {pin}}
    with both; `options` are those of its adapter. A file must have its digest. Each look is a finding of the watch "service/step@run-N"; the check's
    memory is kept from run to run under "service/step@run".
    """

    takes: ClassVar[frozenset[str]] = frozenset({"check", "with", "bind"})
    gives: ClassVar[frozenset[str]] = frozenset({"finding", "reason", "observed"})

    def fits(self, args: Mapping[str, Json]) -> None:
        """PlanError when there is no such check, it is given what it does not take, or it needs what neither the service nor `bind` has."""
        fitting(self.service, args, args.get("bind") or {})

    def wrong(self, args: Mapping[str, Json]) -> str:
        return Looking.wrong(self, {**args, "bind": dict.fromkeys(args.get("bind") or {})})  # what is bound is known when it is made

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        key = f"{self.service.name}/{t.step}@run-{t.run}"
        with self.world.store.read() as ledger:
            seen = ledger.findings(watch=key, since=t.began_at - timedelta(seconds=1), limit=LOOKS)
        if seen and (seen[0].status is not Status.ERROR or len(seen) == LOOKS):
            return _meant(seen[0])
        try:
            bind = {role: _bound(self.service.name, role, given) for role, given in (args.get("bind") or {}).items()}
        except PlanError as problem:
            return Failed(str(problem))
        made = self._look(args, t, key, bind)
        return _meant(made) if made.status is not Status.ERROR or len(seen) + 1 == LOOKS else Unknown(made.reason)

    def _look(self, args: Mapping[str, Json], t: Try, key: str, bind: Mapping[str, Locator]) -> Finding:
        left = max(t.deadline - self.world.clock(), timedelta(seconds=1))
        plain = temporary(self.service.name, f"{t.step}@run", args, left, left)
        bare = Watched.of(self.service, plain, Known.now())  # what an earlier step made is no part of what makes two looks comparable
        w = replace(bare, locators={**bare.locators, **{role: at for role, at in bind.items() if role in bare.words}})
        now = self.world.clock()
        window = Window(min(t.began_at, now - timedelta(microseconds=1)), now)
        verdict = look(self.world, w, window, within=left)
        finding = replace(found(w, window, now, verdict, self.world.alone(self.service.name), 0.0), watch=key)
        return self.world.store.write(lambda ledger: _keep(ledger, w, finding, verdict), durable=verdict.status is not Status.ERROR)


def _bound(service: str, role: str, given: Mapping[str, Json]) -> Locator:
    """A file that an earlier step made, in the place of a target; PlanError where it is not what that step left."""
    if "pin" in given:
        if given["pin"] is None:
            raise PlanError(f"{role}: no row was kept apart to judge by; there are too few rows, or bind {role} to rows of its own")
        given = {**given, **given["pin"]}
    path = Path(str(given["folder"]), str(given["file"])) if "folder" in given else Path(str(given["path"]))
    digest, options = given.get("sha256") or (given.get("files") or {}).get(given.get("file")), dict(given.get("options") or {})
    if digest is None:
        raise PlanError(f"{role}: no digest of {path} was handed in; there is {', '.join(given.get('files') or {}) or 'none'}")
    try:
        with path.open("rb") as stream:
            same = hashlib.file_digest(stream, "sha256").hexdigest() == digest
    except OSError as problem:
        raise PlanError(f"{role}: {path} cannot be read ({problem.strerror})") from problem
    if not same:
        raise PlanError(f"{role}: {path} is not what it was when it was made; its sha256 is another")
    if role in MODELS:
        return Locator(service, role, f"{path.suffix.lstrip('.')}:{path}", {**options, "sha256": digest})
    return replace(named(str(path)), service=service, role=role, options=options)


def _keep(ledger: Ledger, w: Watched, finding: Finding, verdict: Verdict) -> Finding:
    kept = ledger.memory(w.key)
    if verdict.memory is not None:
        ledger.put_memory(w.key, (kept[0] if kept else 0) + 1, w.rule, verdict.memory)
    return keep_apart(ledger, finding, replace(verdict, memory=None))


def _meant(finding: Finding) -> Look:
    if finding.status is Status.OK:
        observed = finding.reading.observed if finding.reading else None
        return Done({"finding": finding.id, "reason": finding.headline, "observed": observed}, finding.headline)
    return Failed(f"{finding.status}: {finding.headline}")
