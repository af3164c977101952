"""Waiting: a row that wakes, never a thread that sleeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

from agent.actions.looks import Looking
from agent.model import Done, Json, Look, Pending, Try, duration, spell


class Wait(Looking):
    """`clock.wait {length}`: done that long after the step began; a text with a unit, or seconds."""

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"length"})
    gives: ClassVar[frozenset[str]] = frozenset()

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        length = _length(args["length"])
        left = t.began_at + length - self.world.clock()
        return Pending(left, f"waits {spell(length)}") if left > timedelta() else Done({}, f"waited {spell(length)}")


def _length(value: Json) -> timedelta:
    return duration(value) if isinstance(value, str) else timedelta(seconds=float(value))
