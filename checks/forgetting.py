"""Whether a model still knows what was learned before: a candidate beside its champion, or what is served beside what it once was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from agent import Columns, Json, Model, Reading, Verdict, check, fail, nodata, ok
from checks import _remembered, _slices
from checks._gate import Case, Gate, Judged, Kind, Matrix, Slice, gate
from checks._paired import Compared, Flips, flips, losses
from checks._remembered import Known

STATUS: Mapping[str, Callable[..., Verdict]] = {"promote": ok, "block": fail, "inconclusive": nodata}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The limits of a slice by its name, where it has its own."""

    margin: float
    margins: Mapping[str, float]
    floor: float | None
    floors: Mapping[str, float]
    used: Mapping[str, int] = field(default_factory=dict)

    def slice(self, name: str, kind: Kind) -> Slice:
        return Slice(name, kind, self.margins.get(name, self.margin), self.floors.get(name, self.floor), self.used.get(name, 0))


@check(
    pillar="learning",
    asks="Does the model still know what was learned before, and may it replace the one that is served?",
    cause="answers",
    answers=("MODEL-10",),
)
def eval(
    candidate: Model,
    champion: Model | None = None,
    old: Columns | None = None,
    new: Columns | None = None,
    guard: Columns | None = None,
    memory: Known | None = None,
    tell: Callable[[float, str], None] = lambda done, what: None,
    *,
    label: str,
    by: str | None = None,
    features: Sequence[str] = (),
    margin: float = 0.02,
    margins: Mapping[str, float] = {},
    floor: float | None = None,
    floors: Mapping[str, float] = {},
    alpha: float = 0.05,
    loss: Literal["absolute", "squared"] | None = None,
    untrained: Mapping[str, float] = {},
) -> Verdict:
    """PROMOTE (ok), BLOCK (fail) or INCONCLUSIVE (nodata), from the same rows through both models.

    `old`, `new` and `guard` are labelled rows: what was learned before, what is to be learned, what must never be lost; `by` names a column whose
    values make a slice each. A slice surely worse (McNemar's exact test, Holm over all slices, `alpha`) and not shown to lose less than its `margin`
    blocks, and so does one surely below its `floor`; it promotes only where all slices are shown to lose less. Guard slices are also held to the best
    version that was ever served, row by row, as far as memory has it. Without a champion what is served is compared with the best it ever was.
    `loss` judges numbers by their loss instead of classes by right and wrong; `margin` is then in its unit, and the ratchet is not kept. `untrained`
    is the accuracy of a model that learned nothing, by slice: with it forward transfer is told of the new ones.
    """
    bound: dict[Kind, Columns | None] = {"old": old, "new": new, "guard": guard}
    tables = {kind: table for kind, table in bound.items() if table is not None}
    names = _slices.shared_columns(tables, features, (label, by))
    slices = [rows for kind, table in tables.items() for rows in _slices.read(table, kind, label, by, names, loss is not None)]
    if not slices:
        return nodata("there is no slice to judge by; bind `old`, `new` or `guard` to a table of labelled rows")
    models = {"candidate": candidate, **({"champion": champion} if champion is not None else {})}
    for done, (word, name) in enumerate(_slices.answered(slices, models, loss is not None)):
        tell(done / (len(models) * len(slices)), f"{word}: {name}")
    if loss is None:
        _slices.spelled_alike(slices)
    known = memory or Known()
    asked = _Asked(margin, margins, floor, floors, known.used)
    cases = [case for rows in slices for case in _cases(rows, asked, champion, known, loss)]
    found = gate(cases, alpha)
    served, word = (champion, "champion") if champion is not None else (candidate, "candidate")
    remembered = _remembered.after(known, served.name, word, slices) if loss is None else replace(known, used=_remembered.used(known, slices))
    record, forward = remembered.matrix(), None
    if champion is not None and loss is None:
        last = f"{candidate.name}, the candidate"
        record = _remembered.after(remembered, last, "candidate", slices).matrix()
        forward = record.forward({rows.name: last for rows in slices if rows.kind == "new"}, untrained)
    data = {"gate.json": _json(found, slices, record, forward)}
    return _told(found, cases, slices, candidate.name, champion.name if champion else None, memory=remembered, data=data)


def _cases(rows: _slices.Rows, asked: _Asked, champion: Model | None, known: Known, loss: str | None) -> list[Case]:
    slice = asked.slice(rows.name, rows.kind)
    if not rows.n:
        return [Case(slice, "anything", Flips(0, 0, 0, 0))]
    made = [Case(slice, f"the champion, {champion.name}", _compared(rows, loss))] if champion is not None else []
    best = known.best.get(rows.name) if loss is None and (rows.kind == "guard" or champion is None) else None
    if best is not None and best.digest == rows.digest and not (champion is not None and best.version == champion.name):
        made.append(Case(slice, f"the best ever served, {best.version}", _against(rows, best)))
    return made


def _compared(rows: _slices.Rows, loss: str | None) -> Compared:
    before, after = rows.answers["champion"], rows.answers["candidate"]
    if loss is None:
        return flips(rows.truth, before, after)
    size = abs if loss == "absolute" else lambda gap: gap * gap
    return losses(size(before - rows.truth), size(after - rows.truth))


def _against(rows: _slices.Rows, best: _remembered.Best) -> Flips:
    """The candidate beside what is remembered of a version: which rows it had right, and not what it answered, so that churn is not known."""
    before, after = best.right(rows.n), rows.right("candidate")
    both, lost, won = int((before & after).sum()), int((before & ~after).sum()), int((~before & after).sum())
    return Flips(both, lost, won, rows.n - both - lost - won, lost + won)


# What is told


def _told(found: Gate, cases: Sequence[Case], slices: Sequence[_slices.Rows], name: str, champion: str | None, **kept: Any) -> Verdict:
    if not cases:
        said = f"{name} is the first that is seen on {len(slices)} slices, and what the next ones are compared with"
        return nodata(said, **kept)
    words = {"promote": "PROMOTE", "block": "BLOCK", "inconclusive": "INCONCLUSIVE"}
    who = f"{name} instead of {champion}" if champion else f"{name} beside what was served before"
    lines = [f"{words[found.outcome]} {who}: {found.why}", *_rests(found, slices)]
    parts = {
        _part(j): Reading(j.case.pair.change if j.case.pair.n else None, -j.case.slice.margin, j.interval, int(j.case.pair.n)) for j in found.judged
    }
    reading = next(iter(parts.values()))
    return STATUS[found.outcome]("\n".join(lines), reading, parts=parts, **kept)


def _part(judged: Judged) -> str:
    return f"{judged.case.slice.name} against {judged.case.against}"


def _rests(found: Gate, slices: Sequence[_slices.Rows]) -> list[str]:
    """What the verdict rests on, a line each: flips, calibration, rows that are missing or count twice, slices that wear out."""
    lines = [line for judged in found.judged if isinstance(judged.case.pair, Flips) and judged.case.pair.n for line in [_flipped(judged)]]
    lines += [f"{rows.name}: {rows.unlabelled} rows have no label and were left out" for rows in slices if rows.unlabelled]
    lines += [f"{count} rows are both in {one} and in {other}: they count twice" for (one, other), count in _slices.shared(slices).items()]
    lines += [
        f"{rows.name}: all labels are '{rows.truth[0]}'" for rows in slices if rows.n and rows.truth.dtype.kind == "O" and len(set(rows.truth)) == 1
    ]
    worn = [judged.case.slice for judged in found.judged if judged.case.slice.used >= 20]
    return lines + [f"{slice.name} has judged {slice.used} candidates before: a slice that is used again and again wears out" for slice in worn]


def _flipped(judged: Judged) -> str:
    pair = judged.case.pair
    assert isinstance(pair, Flips)
    flipped = f"{pair.lost:g} of {pair.n:g} right before and wrong now, {pair.won:g} the other way, {pair.churn:.1%} answered differently"
    btc = "" if pair.btc is None else f", trust kept {pair.btc:.1%}"
    return f"{_part(judged)}: {pair.before:.2%} to {pair.after:.2%}; {flipped}{btc}"


def _json(found: Gate, slices: Sequence[_slices.Rows], record: Matrix, forward: float | None) -> bytes:
    told = {
        "outcome": found.outcome,
        "why": found.why,
        "cases": [_case(judged) for judged in found.judged],
        "calibration": {rows.name: {model: _ece(rows, model) for model in rows.hits} for rows in slices if rows.hits},
        "history": {**_history(record), "forward_transfer": forward},
    }
    return json.dumps(told, indent=1, allow_nan=False).encode()


def _case(judged: Judged) -> Json:
    case, pair = judged.case, judged.case.pair
    names = ("before", "after", "nfr", "pfr", "churn", "btc", "bec", "lost", "won")
    counted = {name: getattr(pair, name) for name in names} if isinstance(pair, Flips) and pair.n else {}
    said = {"slice": case.slice.name, "kind": case.slice.kind, "against": case.against, "outcome": judged.outcome, "why": judged.why}
    numbers = {"n": pair.n, "change": pair.change if pair.n else None, "interval": list(judged.interval), "margin": case.slice.margin}
    finite = {name: value for name, value in numbers.items() if name != "interval" or all(abs(end) < float("inf") for end in judged.interval)}
    return {**said, **finite, "p_worse": judged.adjusted, "floor": case.slice.floor, "rows_needed": judged.short, "used": case.slice.used, **counted}


def _history(matrix: Matrix) -> Json:
    told: dict[str, Any] = {"versions": list(matrix.versions), "slices": {}}
    for name in matrix.slices:
        row = {version: matrix.values[version, name] for version in matrix.versions if (version, name) in matrix.values}
        told["slices"][name] = {"accuracy": row, "forgetting": matrix.forgetting(name)}
    return {**told, "forgetting": dict(matrix.forgotten()), "backward_transfer": matrix.transfer()}


def _ece(rows: _slices.Rows, model: str) -> float | None:
    import numpy as np

    from checks._calibration import measure

    measured = partial(measure, rows.hits[model], rows.right(model).astype(np.float64), np.ones(rows.n))
    return measured().ece.value if rows.n else None
