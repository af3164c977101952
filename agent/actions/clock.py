"""Waiting: a row that wakes, never a thread that sleeps; and whether all stays well meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

from agent.actions.looks import Looking
from agent.errors import PlanError
from agent.model import Done, Failed, Json, Look, Pending, Status, Try, duration, spell

EVERY = timedelta(seconds=1)  # how often what the watches have seen is looked at


class Wait(Looking):
    """`clock.wait {length}`: done that long after the step began; a text with a unit, or seconds."""

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"length"})
    gives: ClassVar[frozenset[str]] = frozenset()

    def fits(self, args: Mapping[str, Json]) -> None:
        """PlanError when the length is none."""
        length_of(args.get("length"))

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        length = length_of(args["length"])
        left = t.began_at + length - self.world.clock()
        return Pending(left, f"waits {spell(length)}") if left > timedelta() else Done({}, f"waited {spell(length)}")


class Stays(Looking):
    """`check.stays {watches, length}`: for that long from the beginning of the step none of these watches is bad, and each is seen ok by its end.

    It looks at nothing itself: the watches do, as they always do, and are bad after as many fails as they always are.
    """

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"watches", "length"})
    gives: ClassVar[frozenset[str]] = frozenset()

    def fits(self, args: Mapping[str, Json]) -> None:
        """PluginError when one of them is no watch; PlanError when there is none, or the length is none."""
        length_of(args.get("length"))
        if not args.get("watches"):
            raise PlanError("check.stays needs `watches`: where nobody looks, nothing stays well")
        for name in args["watches"]:
            self.world.find(name)

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        length, now = length_of(args["length"]), self.world.clock()
        signals = {name: self.world.store.signal(self.world.find(name).key) for name in args["watches"]}
        if bad := [f"{name}: {signal.reason}" for name, signal in signals.items() if signal is not None and signal.state == "bad"]:
            return Failed("; ".join(bad))
        if (left := t.began_at + length - now) > timedelta():
            return Pending(min(left, EVERY), f"stays well, {spell(left)} to go")
        seen = {name for name, signal in signals.items() if signal is not None and signal.status is Status.OK and signal.looked_at > t.began_at}
        if unseen := sorted(signals.keys() - seen):
            return Pending(EVERY, f"{' and '.join(unseen)} has not been seen ok since it began")
        return Done({}, f"{' and '.join(sorted(signals))} stayed ok for {spell(length)}")


def length_of(value: Json) -> timedelta:
    """A length as a plan says it: a text with a unit, or seconds; PlanError for what is none."""
    try:
        found = value if isinstance(value, timedelta) else duration(value) if isinstance(value, str) else timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError) as problem:
        raise PlanError(f"{value!r:.80} is no length of time ({problem}); write 250ms, 10s, 5m or 1h30m") from problem
    if found <= timedelta():
        raise PlanError(f"{value!r:.80} is no length of time to wait: it is not above 0")
    return found
