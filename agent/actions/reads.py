"""What a plan can ask of the data: a version on which a failing watch is ok, as it was looked at when it last was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from agent.actions.looks import Looking, first
from agent.look import look
from agent.model import Done, Failed, Json, Look, Status, Try, Unknown, Verdict
from agent.world import Watched

LONGEST = timedelta(days=7)  # that a watch may have been bad and its last good look still be found where no finding of it was kept


class Sound(Looking):
    """`check.sound {watch, versions}`: the first of these versions of the data on which the watch is ok; without versions, what is read now is.

    It is looked at as of its last good look: with that look's window and that time as now, for an older version cannot hold what came since. A watch
    that was never ok is looked at as of now.
    """

    __slots__ = ()
    takes = frozenset({"watch", "versions"})
    gives = frozenset({"version", "reason"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        w = self.world.find(args["watch"])
        if "versions" not in args:
            return _meant(self._verdict(w, t), w, "what is read now", None)
        return first(args["versions"], lambda version: self._one(w, version, t))

    def _one(self, w: Watched, version: str, t: Try) -> Look:
        if "data" not in self.service.targets:
            return Failed(f"{self.service.name} has no data target, so no version of its data can be asked")
        with self.world.connections(self.service.targets["data"]) as data:
            read = {role: there for role, at in w.locators.items() if (there := data.seen(at, version)) is not None}
        if not read:
            return Failed(f"{w.key} looks at nothing that is read through the data target, so no version of it can make it better")
        return _meant(self._verdict(replace(w, locators={**w.locators, **read}), t), w, f"version {version}", version)

    def _verdict(self, w: Watched, t: Try) -> Verdict:
        now = self._as_of(w)
        return look(self.world, w, w.window(now), within=self._left(w, t), now=now)

    def _as_of(self, w: Watched) -> datetime:
        """When it last looked good: the last good finding that was kept, or the begin of the last minute with a good look. Now, if never."""
        now = self.world.clock()
        with self.world.store.read() as ledger:
            kept = next((one.looked_at for one in ledger.findings(watch=w.key, limit=1000) if one.status is Status.OK), None)
            minutes = [row["minute_at"] for row in ledger.rollups(w.key, kept or now - LONGEST) if row["good"]]
        return max([*([kept] if kept else []), *minutes[-1:]], default=now)


def _meant(verdict: Verdict, w: Watched, what: str, version: str | None) -> Look:
    if verdict.status is Status.OK:
        return Done({"version": version, "reason": verdict.reason}, f"{what} is ok: {verdict.reason}")
    said = f"{w.watch.name} on {what}: {verdict.reason}"
    return Failed(said) if verdict.status in (Status.FAIL, Status.WARN) else Unknown(said)
