"""One window of labelled answers as a Verdict: the metric against its limits, slice by slice, with every other number beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agent import Reading, Verdict, fail, ok, skip, to_json, warn
from checks import _limits, _metrics
from checks._labels import Joined
from checks._limits import Judged
from checks._metrics import Estimate
from checks._sample import Sample, UndefinedError

SHOWN = 20  # classes that are parts of their own


class Rule(Protocol):
    """What judges the rows of a slice, or of all; `needs` names what each slice is put beside, where it cannot do without."""

    @property
    def rows_at_least(self) -> int: ...
    @property
    def needs(self) -> str: ...
    def judge(self, name: str, rows: Sample, yard: Sample | None) -> Judged: ...


@dataclass(frozen=True, slots=True)
class Ruler:
    """What is measured, and what it may be."""

    metric: str
    at_least: float | None
    at_most: float | None
    worse_by: float | None
    tau: float
    rows_at_least: int

    @property
    def needs(self) -> str:
        return "" if self.worse_by is None else "the yardstick"

    def judge(self, name: str, rows: Sample, yard: Sample | None) -> Judged:
        return self.against(name, _metrics.estimate(self.metric, rows, self.tau), yard)

    def against(self, name: str, found: Estimate, yard: Sample | None) -> Judged:
        """A number that was found, against the limits."""
        wanted = self.worse_by is not None and yard is not None and yard.n >= self.rows_at_least
        than = _metrics.estimate(self.metric, yard, self.tau) if wanted and yard is not None else None
        return _limits.judge(name, found, _limits.limits(self.metric, self.at_least, self.at_most, self.worse_by, than))


def sliced_by(
    rule: Rule, joined: Joined, rows: Sample, yard: tuple[Joined, Sample] | None, wanted: Sequence[str | Mapping[str, Sequence[float]]]
) -> tuple[list[Judged], list[str]]:
    """Each slice judged (against the same slice of the yardstick, where there is one), and those that cannot be, with why."""
    than = dict(_limits.slices(yard[0], wanted, joined)) if yard and wanted else {}
    found, small = [], []
    for name, keep in _limits.slices(joined, wanted):
        part = rows.pick(keep[rows.at])
        if part.n < rule.rows_at_least:
            small += [f"{name} ({part.n})"] if part.n else []
            continue
        beside = yard[1].pick(than[name][yard[1].at]) if yard and name in than else None
        if rule.needs and (beside is None or beside.n < rule.rows_at_least):
            small.append(f"{name} ({beside.n if beside else 0} of {rule.needs})")
            continue
        try:
            found.append(rule.judge(name, part, beside))
        except UndefinedError as problem:
            small.append(f"{name} ({problem})")
    return found, small


def others_of(rows: Sample, tau: float, judged: str) -> dict[str, Estimate]:
    """Every other metric that these rows have, and each class's own."""
    found = {}
    for name in _metrics.METRICS:
        try:
            found[name] = _metrics.estimate(name, rows, tau)
        except UndefinedError:
            continue
    found.pop(judged, None)
    return found | (_by_class(rows) if rows.task != "regression" else {})


def _by_class(rows: Sample) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    if (rows.answer < 0).any():
        return found
    cells = _metrics.table(rows)
    for place in sorted(range(len(cells)), key=lambda place: -cells[place].sum())[:SHOWN]:
        for metric in _metrics.BY_CLASS:
            try:
                found[f"{metric}.{rows.classes[place][:80]}"] = _metrics.by_class(metric, cells, place, rows)
            except UndefinedError:
                continue
    return found


# In words


def told(
    overall: Judged, sliced: list[Judged], small: list[str], joined: Joined, rows: Sample, coverage_at_least: float, others: Mapping[str, Estimate]
) -> Verdict:
    thin = (joined.coverage.observed or 0) < coverage_at_least
    notes = [*([thin_words(joined)] if thin else []), *notes_of(joined, rows, small)]
    parts = {
        overall.name: overall.reading,
        "coverage": joined.coverage,
        **parts_of(sliced),
        **{name: Reading(one.value, None, (one.low, one.high), one.n) for name, one in others.items()},
    }
    data = {"quality.json": _file(overall, sliced, small, joined, rows, others)}
    return verdict(words(overall), overall, sliced, notes, parts, data, thin, bool(joined.conflicts and not joined.latest))


def parts_of(sliced: Sequence[Judged]) -> dict[str, Reading]:
    """A reading for each slice, the worst first."""
    bad = _limits.surely(sliced)
    return {f"slice.{one.name}": one.reading for one in sorted(sliced, key=lambda one: (one not in bad, not one.beyond, one.p))}


def verdict(
    said: str,
    overall: Judged,
    sliced: Sequence[Judged],
    notes: Sequence[str],
    parts: Mapping[str, Reading],
    data: Mapping[str, bytes],
    thin: bool = False,
    wary: bool = False,
) -> Verdict:
    """Fails where all rows, or a slice by Holm, are surely beyond; warns where they only seem to be. `thin` cannot fail, `wary` cannot be ok."""
    bad, more = _limits.surely(sliced), {"parts": parts, "data": data}
    aside = "".join(f"; {note}" for note in notes)
    if not overall.limited:
        return skip(f"{said}, and no limit is set: give at_least, at_most or worse_by{aside}", overall.reading, **more)
    if overall.sure or bad:
        named = ", ".join(words(one) for one in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        return (warn if thin else fail)(f"{said}{'; in ' if named else ''}{named}{aside}", overall.reading, **more)
    beyond = [one for one in sliced if one.beyond]
    if overall.beyond or beyond:
        unsure = "" if overall.beyond else f"; in {words(beyond[0])}"
        return warn(f"{said}{unsure}: beyond the limit, and chance may be why{aside}", overall.reading, **more)
    return (warn if thin or wary else ok)(f"{said}{aside}", overall.reading, **more)


def thin_words(joined: Joined) -> str:
    share = joined.coverage.observed or 0.0
    return f"only {share:.0%} of {joined.predictions} predictions have a label, and those may be biased; see coverage_at_least"


def words(one: Judged) -> str:
    low, high = one.reading.interval or (0.0, 0.0)
    limit = "" if one.reading.limit is None else f", limit {one.reading.limit:.4g}"
    return f"{one.name} {one.found.value:.4g} ({low:.4g} to {high:.4g}{limit}, {one.found.n} rows)"


def notes_of(joined: Joined, rows: Sample, small: Sequence[str]) -> list[str]:
    notes = joined.notes()
    if rows.left_out:
        notes.append(f"{rows.left_out} labelled rows have no answer or no usable label")
    return notes + small_words(small)


def small_words(small: Sequence[str]) -> list[str]:
    return [f"too small to judge: {', '.join(small[:3])}" + (f" and {len(small) - 3} more" if len(small) > 3 else "")] if small else []


def slices_told(sliced: Sequence[Judged], small: Sequence[str]) -> dict[str, Any]:
    """The slices as they stand in a file."""
    bad = _limits.surely(sliced)
    return {"slices": [{**to_json(one), "failed": one in bad} for one in sliced], "not_judged": list(small)}


def _file(overall: Judged, sliced: list[Judged], small: list[str], joined: Joined, rows: Sample, others: Mapping[str, Estimate]) -> bytes:
    counts = {name: getattr(joined, name) for name in ("predictions", "labelled", "repeated", "again", "conflicts", "early", "read")}
    told: dict[str, Any] = {
        "task": rows.task,
        "classes": rows.classes,
        "counts": counts | {"used": rows.n, "left_out": rows.left_out},
        "judged": to_json(overall),
        **slices_told(sliced, small),
        "metrics": to_json(others),
    }
    if rows.task != "regression" and not (rows.answer < 0).any():
        told["table"] = _metrics.table(rows).tolist()
    return json.dumps(told, indent=1).encode()
