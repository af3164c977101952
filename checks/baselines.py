"""Whether the model is worth having: better than the simplest answer there is, and no worse than what it replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent import Columns, Model, Reading, Verdict, check, fail, nodata, ok, warn
from checks import _slices
from checks._paired import Flips, flips


@check(pillar="learning", asks="Does the model beat the simplest answer, and not lose to its predecessor?", severity="ticket", answers=("MODEL-05",))
def simple(
    candidate: Model,
    guard: Columns,
    champion: Model | None = None,
    *,
    label: str,
    features: Sequence[str] = (),
    margin: float = 0.01,
    level: float = 0.95,
    rows_at_least: int = 100,
) -> Verdict:
    """On the labelled rows of `guard`, that nobody trains on, row by row: `candidate` (what is served) beside the most frequent label, and beside
    `champion` (what was served before). ok: the paired interval of Tango (1998) at `level` lies above 0 against the one, and above -`margin` against
    the other. One of the two warns, and so does a model that has no predecessor; neither fails.
    """
    (rows,) = _slices.read(guard, "guard", label, None, features, False)
    if rows.n < rows_at_least:
        return nodata(f"{rows.n} labelled rows; {rows_at_least} are needed", Reading(rows.n, rows_at_least, unit="rows"))
    for _ in _slices.answered([rows], {"candidate": candidate, **({"champion": champion} if champion is not None else {})}, False):
        pass
    usual = Counter(rows.truth.tolist()).most_common(1)[0][0]
    pairs = {f"always '{usual}'": flips(rows.truth, [usual] * rows.n, rows.answers["candidate"])}
    if champion is not None:
        pairs[f"{champion.name}, its predecessor"] = flips(rows.truth, rows.answers["champion"], rows.answers["candidate"])
    limits = dict(zip(pairs, (0.0, -margin), strict=False))
    parts = {f"against {name}": Reading(pair.change, limits[name], pair.interval(level), rows.n) for name, pair in pairs.items()}
    good = [name for name, pair in pairs.items() if pair.interval(level)[0] > limits[name]]
    told = "; ".join(_words(name, pair, level) for name, pair in pairs.items()) + ("" if champion is not None else "; no predecessor is bound")
    reading = next(iter(parts.values()))
    if len(good) == 2:
        return ok(f"{candidate.name} on {rows.n} rows: {told}", reading, parts=parts)
    return (warn if good else fail)(f"{candidate.name} on {rows.n} rows: {told}", reading, parts=parts)


def _words(name: str, pair: Flips, level: float) -> str:
    low, high = pair.interval(level)
    return f"{pair.change:+.2%} against {name} ({low:+.2%} to {high:+.2%})"
