"""How near each limit was: how many windows would have failed had it been half as large, or twice, by the readings that were taken anyway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite

from agent.model import Finding, Json, Reading, Status

FACTORS = (0.5, 0.8, 1.0, 1.25, 2.0)
JUDGED = (Status.OK, Status.WARN, Status.FAIL)


@dataclass(slots=True)
class Side:
    """One reading over many windows: on which side of its limit it was, at each factor, and which side that shows to be the bad one."""

    windows: int = 0
    failed: int = 0
    above: list[int] = field(default_factory=lambda: [0] * len(FACTORS))
    below: list[int] = field(default_factory=lambda: [0] * len(FACTORS))
    by_good: int = 0  # positive where windows that were good lay below the limit
    by_bad: int = 0  # positive where windows that failed lay above it

    def add(self, reading: Reading, status: Status) -> None:
        """Count a window in which it was read; a limit of 0 has no multiples."""
        observed, limit = reading.observed, reading.limit
        if observed is None or not limit or not isfinite(observed) or not isfinite(limit):
            return
        self.windows += 1
        self.failed += status is Status.FAIL
        for place, factor in enumerate(FACTORS):
            self.above[place] += observed > limit * factor
            self.below[place] += observed < limit * factor
        step = (observed < limit) - (observed > limit)
        if status is Status.FAIL:
            self.by_bad -= step
        else:
            self.by_good += step

    @property
    def side(self) -> str:
        """Which side fails; empty where the readings cannot tell. A window that failed says more than one that was good: a check may ask for more."""
        vote = self.by_bad or self.by_good
        return "above" if vote > 0 else "below" if vote < 0 else ""

    def counts(self, side: str) -> list[int]:
        """Windows that would have failed, at each factor."""
        return self.above if side == "above" else self.below

    def told(self, side: str, part: str | None = None) -> Json:
        """As JSON. `approximate` where the check is more than this threshold: at its own limit the readings alone tell another number of fails."""
        counts = self.counts(side)
        would = {f"{factor:g}": count for factor, count in zip(FACTORS, counts, strict=True)}
        approximate = part is not None or counts[FACTORS.index(1.0)] != self.failed
        return {
            "part": part,
            "fails": side,
            "windows": self.windows,
            "failed": self.failed,
            "would_fail_at_limit_times": would,
            "approximate": approximate,
        }


@dataclass(slots=True)
class Nearness:
    """The reading of a watch and those of its parts."""

    whole: Side = field(default_factory=Side)
    parts: dict[str, Side] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count one finding, if it judged."""
        if finding.status not in JUDGED:
            return
        if finding.reading is not None:
            self.whole.add(finding.reading, finding.status)
        for name, reading in finding.parts.items():
            self.parts.setdefault(name, Side()).add(reading, finding.status)

    def told(self) -> Iterator[Json]:
        """The watch's own reading, and its worst part: the one that would have failed most often."""
        whole = self.whole.side
        if whole:
            yield self.whole.told(whole)
        sides = {name: side for name, one in self.parts.items() if (side := whole or one.side)}  # of a window that failed, most parts may be good
        if sides:
            name = max(sides, key=lambda name: (*self.parts[name].counts(sides[name])[2::-1], name))
            yield self.parts[name].told(sides[name], name)
