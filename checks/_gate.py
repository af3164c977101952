"""May a candidate replace the champion? Promote and block are separate claims, and between them lies "label more rows"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.stats import clopper_pearson, holm
from checks._paired import Compared, Flips, rows_needed

Kind = Literal["old", "new", "guard"]
Outcome = Literal["promote", "block", "inconclusive"]
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows that stand for something: what was learned before (`old`), what is to be learned (`new`), what must never be lost (`guard`).

    `margin` is the loss of the measure that is put up with; `floor` the accuracy below which nothing is served, whatever was served before.
    """

    name: str
    kind: Kind
    margin: float = 0.02
    floor: float | None = None
    used: int = 0  # how often candidates were judged by it before: a slice wears out


@dataclass(frozen=True, slots=True)
class Case:
    """The candidate beside another version on one slice: the champion, or the best version that was ever served (the ratchet)."""

    slice: Slice
    against: str
    pair: Compared


@dataclass(frozen=True, slots=True)
class Judged:
    """What one case came to. `adjusted` is Holm's p-value of "worse"; `short` how many more rows would show it is within its margin."""

    case: Case
    outcome: Outcome
    interval: tuple[float, float]  # 90 %: its lower end is the bound of the one-sided test at 5 %
    adjusted: float
    short: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Gate:
    """PROMOTE, BLOCK or INCONCLUSIVE, with every case behind it, the worst first."""

    outcome: Outcome
    judged: tuple[Judged, ...]
    why: str


def gate(cases: Sequence[Case], alpha: float = ALPHA) -> Gate:
    """Blocks where a slice is surely worse (exact, Holm over all cases) and not shown to be within its margin, or surely below its floor.

    Promotes only where every case is shown to be within its margin and every floor kept: each at `alpha`, which needs no correction, since all
    must be shown (an intersection-union test, Berger 1982). What is neither is inconclusive, with the rows that are lacking.
    """
    adjusted = holm([case.pair.worse() for case in cases])
    judged = sorted((_judge(case, p, alpha) for case, p in zip(cases, adjusted, strict=True)), key=_badness)
    outcome: Outcome = "block" if any(j.outcome == "block" for j in judged) else "inconclusive"
    if judged and all(j.outcome == "promote" for j in judged):
        outcome = "promote"
    return Gate(outcome, tuple(judged), _told(outcome, judged))


def _judge(case: Case, adjusted: float, alpha: float) -> Judged:
    slice, pair = case.slice, case.pair
    if pair.n == 0:
        return Judged(case, "inconclusive", (-1.0, 1.0), 1.0, None, f"{slice.name} has no rows")
    interval = pair.interval(1 - 2 * alpha)
    kept = pair.within(slice.margin) <= alpha
    change, low, high = (_spelled(pair, value) for value in (pair.change, *interval))
    said = f"{slice.name}: {change} against {case.against} ({low} to {high}, n {pair.n:g})"
    floored = _floor(slice, pair, alpha)
    if floored == "below":
        return Judged(case, "block", interval, adjusted, None, f"{said}; surely below its floor of {slice.floor:g}")
    if adjusted <= alpha and not kept:
        return Judged(
            case, "block", interval, adjusted, None, f"{said}; surely worse (p {adjusted:.2g}), and not shown to lose less than {slice.margin:g}"
        )
    if kept and floored == "kept":
        return Judged(case, "promote", interval, adjusted, 0, f"{said}; loses less than {slice.margin:g}")
    short = rows_needed(pair, slice.margin, alpha) if not kept else None
    lacks = (
        f"label about {short} more rows of it"
        if short
        else "more rows would not show it"
        if not kept
        else f"not shown to keep its floor of {slice.floor:g}"
    )
    return Judged(case, "inconclusive", interval, adjusted, short, f"{said}; {lacks}")


def _floor(slice: Slice, pair: Compared, alpha: float) -> Literal["kept", "below", "unsure"]:
    """Where the candidate's accuracy stands to the floor, by exact one-sided bounds; only answers that are right or wrong have one."""
    if slice.floor is None or not isinstance(pair, Flips):
        return "kept"
    low, high = clopper_pearson(int(pair.both + pair.won), int(pair.n), 1 - 2 * alpha)
    return "below" if high < slice.floor else "kept" if low >= slice.floor else "unsure"


def _badness(judged: Judged) -> tuple[int, float]:
    return ("block", "inconclusive", "promote").index(judged.outcome), judged.interval[0]


def _told(outcome: Outcome, judged: Sequence[Judged]) -> str:
    if not judged:
        return "nothing was compared"
    if outcome == "promote":
        return f"no slice loses its margin; the nearest is {judged[0].why}"
    return "; ".join(j.why for j in judged if j.outcome == outcome)


def _spelled(pair: Compared, change: float) -> str:
    return f"{100 * change:+.2f} points" if isinstance(pair, Flips) else f"{change:+.4g}"


# The record of versions


@dataclass(frozen=True, slots=True)
class Matrix:
    """Accuracy by version and slice as it was measured: versions in the order they were served, a slice missing where it was not judged yet."""

    versions: tuple[str, ...]
    slices: tuple[str, ...]
    values: Mapping[tuple[str, str], float]

    def forgetting(self, slice: str) -> float | None:
        """The best of the earlier versions less the last one (Chaudhry et al. 2018): below 0 where it still improves; None without an earlier one."""
        *before, last = self._row(slice) or [None]
        known = [value for value in before if value is not None]
        return max(known) - last if known and last is not None else None

    def forgotten(self) -> Mapping[str, float]:
        """Forgetting on average over the slices that an earlier version knew, as libraries define it, which do not agree. Empty where none is known.

        `chaudhry`: the best earlier version less the last one. `avalanche`: the first less the last, which is backward transfer turned round.
        `mammoth`: the best of all versions less the last, never below 0. `continuum` (1.2.7): as Chaudhry's without the version before the last, so
        that it sees nothing between two versions, over all versions but one.
        """
        gaps = [gap for slice in self.slices if (gap := self.forgetting(slice)) is not None]
        if not gaps:
            return {}
        older = Matrix((*self.versions[:-2], self.versions[-1]), self.slices, self.values)
        late = [gap for slice in self.slices if (gap := older.forgetting(slice)) is not None]
        return {
            "chaudhry": sum(gaps) / len(gaps),
            "avalanche": -(self.transfer() or 0.0),
            "mammoth": sum(max(gap, 0.0) for gap in gaps) / len(gaps),
            "continuum": sum(late) / (len(self.versions) - 1),
        }

    def transfer(self) -> float | None:
        """Backward transfer (Lopez-Paz and Ranzato 2017): how the last version differs from the first that knew each slice, on average."""
        gaps = [last - first for slice in self.slices if (ends := self._ends(slice)) is not None for first, last in (ends,)]
        return sum(gaps) / len(gaps) if gaps else None

    def forward(self, learned: Mapping[str, str], untrained: Mapping[str, float]) -> float | None:
        """Forward transfer (the same): accuracy on a slice right before it was learned, less that of an untrained model, on average.

        `learned` names the version that first learned each slice, `untrained` the accuracy of a model that learned nothing.
        """
        gaps = []
        for slice, version in learned.items():
            place = self.versions.index(version)
            value = self.values.get((self.versions[place - 1], slice)) if place else None
            if value is not None and slice in untrained:
                gaps.append(value - untrained[slice])
        return sum(gaps) / len(gaps) if gaps else None

    def best(self, slice: str) -> str | None:
        """The version that was best on a slice, the newest of equals: what the ratchet holds a candidate to."""
        known = [(self.values[version, slice], place, version) for place, version in enumerate(self.versions) if (version, slice) in self.values]
        return max(known)[2] if known else None

    def _row(self, slice: str) -> list[float | None]:
        return [self.values.get((version, slice)) for version in self.versions]

    def _ends(self, slice: str) -> tuple[float, float] | None:
        known = [value for value in self._row(slice)[:-1] if value is not None]
        last = self._row(slice)[-1] if self.versions else None
        return (known[0], last) if known and last is not None else None
