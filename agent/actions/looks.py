"""What a plan can ask of the service's own watches: a version that does better, one that is well, what users are served, what one watch says."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from textwrap import shorten
from typing import ClassVar

from agent.changes import see_served
from agent.config import ServiceConfig
from agent.errors import PlanError, WatchkeeperError
from agent.fitting import refs
from agent.look import confirmed, look
from agent.model import Done, Failed, Json, Look, Pending, Status, Try, Unknown, Verdict, Window, error, spell
from agent.world import Watched, World

AGAIN = timedelta(seconds=1)  # between looks at what must stay ok
TOLD = 200  # characters of what is wrong with one of several versions: all of them should fit where one is told


@dataclass(frozen=True, slots=True)
class Looking:
    """An action that only looks: nothing to do, nothing to undo."""

    takes: ClassVar[frozenset[str]]
    gives: ClassVar[frozenset[str]]
    world: World
    service: ServiceConfig
    writes: bool = False
    repeatable: bool = True

    def before(self, args: Mapping[str, Json]) -> Json:
        return None

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        return None

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None

    def fits(self, args: Mapping[str, Json]) -> None:
        """A WatchkeeperError for args that can never do."""

    def wrong(self, args: Mapping[str, Json]) -> str:
        """What `fits` says of the args, once all of them are known; empty when nothing."""
        try:
            if not any(refs(args)):
                self.fits(args)
        except WatchkeeperError as problem:
            return str(problem)
        return ""

    def _looks(self, names: Sequence[str], version: str | None, t: Try) -> list[tuple[Watched, Verdict]]:
        now = self.world.clock()
        found = [self.world.find(name) for name in names]
        return [(w, _sure(self.world, w, w.window(now), version, self._left(w, t))) for w in found]

    def _left(self, w: Watched, t: Try) -> timedelta:
        """The time that one look may take."""
        return min(w.watch.within, max(t.deadline - self.world.clock(), timedelta(milliseconds=200)))


def _sure(world: World, w: Watched, window: Window, version: str | None, within: timedelta) -> Verdict:
    """One look; a fail of one version, which would end the run, must be borne out by the looks that confirm, or nothing was told."""
    verdict = look(world, w, window, version=version, within=within)
    if version is None or verdict.status is not Status.FAIL:
        return verdict
    again = confirmed(world, w, window, verdict, version)
    return again if again.status is Status.FAIL else error(again.reason)


class Better(Looking):
    """`check.better {watch, watches, versions}`: the counterfactual. The first of other loaded versions through which the failing check, on the same
    recent inputs, is ok, and which is well besides, as `watches` see it."""

    __slots__ = ()
    takes = frozenset({"watch", "watches", "versions"})
    gives = frozenset({"versions", "reason"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        w = self.world.find(args["watch"])
        if w.load is not None:
            return Failed(f"{w.key} makes load, which is not sent to one version apart: a person should look")
        if "server" not in w.words:
            return Failed(f"{w.key} does not ask the model anything, so no version can make it better")
        return first(args["versions"], lambda version: self._one(args, version, t))

    def _one(self, args: Mapping[str, Json], version: str, t: Try) -> Look:
        ((_, verdict),) = self._looks([args["watch"]], version, t)
        if verdict.status in (Status.FAIL, Status.WARN):
            return Failed(f"version {version} is no better: {verdict.reason}")
        if verdict.status is not Status.OK:
            return Unknown(f"could not ask version {version}: {verdict.reason}")
        others = [name for name in args.get("watches", ()) if name != args["watch"]]
        if bad := _bad(self._looks(others, version, t)):
            return Failed(f"version {version} is better, and not well: {bad}")
        return Done({"versions": [version], "reason": verdict.reason}, f"version {version} is better: {verdict.reason}")


class Passes(Looking):
    """`check.passes {watches, versions}`: the first of the versions that is well before anything is sent to it; at least one look must say so."""

    __slots__ = ()
    takes = frozenset({"watches", "versions"})
    gives = frozenset({"version", "watches"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        return first(args["versions"], lambda version: self._one(args["watches"], version, t))

    def _one(self, watches: Sequence[str], version: str, t: Try) -> Look:
        looks = self._looks(watches, version, t)
        if bad := _bad(looks):
            return Failed(f"version {version} is not well: {bad}")
        good = [w.watch.name for w, v in looks if v.status is Status.OK]
        if good:
            return Done({"version": version, "watches": good}, f"version {version}: {', '.join(good)} ok")
        return Unknown("; ".join(f"{w.watch.name}: {v.reason}" for w, v in looks) or "no watch can look at one version")


def _bad(looks: Sequence[tuple[Watched, Verdict]]) -> str:
    return "; ".join(f"{w.watch.name}: {v.reason}" for w, v in looks if v.status in (Status.FAIL, Status.WARN))


def first(versions: Sequence[str], look: Callable[[str], Look]) -> Look:
    """The first version that will do, with what was wrong with those before it; what could not be told is not what failed."""
    seen: list[Failed | Unknown] = []
    for version in versions:
        found = look(version)
        if isinstance(found, Done):
            return Done(found.output, "; ".join([*(shorten(one.said, TOLD) for one in seen), found.said]))
        assert isinstance(found, (Failed, Unknown))
        seen.append(found)
    said = "; ".join(one.said if len(seen) == 1 else shorten(one.said, TOLD) for one in seen)
    return Unknown(said) if any(isinstance(one, Unknown) for one in seen) else Failed(said)


class Serves(Looking):
    """`check.serves {version, watches}`: what users are served now is that version, and it is well."""

    __slots__ = ()
    takes = frozenset({"version", "watches"})
    gives = frozenset({"version"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        try:
            served = see_served(self.world, self.service)
        except WatchkeeperError as problem:
            return Unknown(f"could not see what is served: {problem}")
        if served != args["version"]:
            return Unknown(f"version {served} is served, not {args['version']}")
        looks = self._looks(args["watches"], None, t)
        wrong = [f"{w.watch.name}: {v.reason}" for w, v in looks if v.status is not Status.OK and v.status is not Status.NODATA]
        if wrong:
            return Unknown("; ".join(wrong))
        return Done({"version": served}, f"version {served} is served" + (f"; {', '.join(w.watch.name for w, _ in looks)} ok" if looks else ""))


class Good(Looking):
    """`check.ok {watch, version}`: one watch looks good now; `version` asks one loaded version instead of what is served."""

    __slots__ = ()
    takes = frozenset({"watch", "version"})
    gives = frozenset({"reason", "observed"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        name = str(args["watch"])
        key = name if "/" in name else f"{self.service.name}/{name}"
        ((_, verdict),) = self._looks([key], args.get("version"), t)
        if verdict.status in (Status.FAIL, Status.WARN):
            return Failed(f"{name}: {verdict.reason}")
        if verdict.status is not Status.OK:
            return Unknown(f"{name}: {verdict.reason}")
        observed = verdict.reading.observed if verdict.reading else None
        return Done({"reason": verdict.reason, "observed": observed}, f"{name}: {verdict.reason}")


class Calm(Looking):
    """`check.calm {watches, causes}`: none of these watches fails now or is bad, and the service has no open incident of these causes.

    What has nothing to judge (nodata, skip) stands in nobody's way; what could not be seen is looked at again.
    """

    __slots__ = ()
    takes = frozenset({"watches", "causes"})
    gives = frozenset({"watches"})

    def fits(self, args: Mapping[str, Json]) -> None:
        """PluginError when one of them is no watch."""
        for name in args.get("watches") or ():
            self.world.find(name)

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        watches = list(args.get("watches") or ())
        if trouble := self._trouble(args.get("causes") or ()):
            return Failed(trouble)
        signals = [signal for name in watches if (signal := self.world.store.signal(self.world.find(name).key)) is not None]
        if bad := "; ".join(f"{signal.watch} is bad: {signal.reason}" for signal in signals if signal.state == "bad"):
            return Failed(bad)
        looks = self._looks(watches, None, t)
        if bad := _bad(looks):
            return Failed(bad)
        if unseen := "; ".join(f"{w.watch.name}: {v.reason}" for w, v in looks if v.status is Status.ERROR):
            return Unknown(unseen)
        return Done({"watches": watches}, f"{', '.join(w.watch.name for w, _ in looks) or 'no watch'} looked at, and nothing is bad")

    def _trouble(self, causes: Container[str]) -> str:
        with self.world.store.read() as ledger:
            opened = ledger.open_incidents(self.service.name)
        found = (one for one in opened for member in one.members if member.cause in causes and member.cleared_at is None)
        return next((f"incident {one.id} is open: {one.title}" for one in found), "")


class Steady(Looking):
    """`check.steady {watches, length}`: each of them is ok, now and for that many seconds; the first look that is anything else fails the step."""

    __slots__ = ()
    takes = frozenset({"watches", "length"})
    gives = frozenset({"watches"})

    def fits(self, args: Mapping[str, Json]) -> None:
        """PluginError when one of them is no watch; PlanError when there is none."""
        if not args.get("watches"):
            raise PlanError("check.steady needs `watches`; to wait only, there is clock.wait")
        for name in args["watches"]:
            self.world.find(name)

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        watches, length = list(args["watches"]), timedelta(seconds=float(args["length"]))
        if wrong := [f"{w.watch.name} {v.status}: {v.reason}" for w, v in self._looks(watches, None, t) if v.status is not Status.OK]:
            return Failed("; ".join(wrong))
        left = t.began_at + length - self.world.clock()
        said = f"{', '.join(name.partition('/')[2] for name in watches)} ok"
        return Pending(min(left, AGAIN), f"{said}; for {spell(left)} more") if left > timedelta() else Done({"watches": watches}, said)
