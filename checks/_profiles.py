"""Two profiles compared, column by column, as drift.compare compares two tables: by what is left of the data in sketches, their errors added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agent import Json
from agent.errors import DataError
from checks import _gaps
from checks._columns import Note
from checks._comparison import DISTINCT, How, Part, of_nulls, of_shares, too_few
from checks._gaps import Gap

KINDS = {"integral": "integer", "fractional": "number", "string": "text", "boolean": "boolean"}
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # whose quantiles are kept
Profile = Mapping[str, Json]


def wanted(now: Profile, then: Profile, columns: Sequence[str] | None) -> list[str]:
    """The columns that the patterns match, or all; DataError for a pattern that matches none."""
    known = sorted({*now, *then})
    for pattern in columns or ():
        if not any(fnmatchcase(name, pattern) for name in known):
            raise DataError(f"columns: '{pattern}' is in neither profile; there is {', '.join(known[:12])}")
    return [name for name in known if columns is None or any(fnmatchcase(name, pattern) for pattern in columns)]


def rows(profile: Profile) -> int:
    """The rows that were profiled: of the fullest column."""
    return max((column["rows"] for column in profile.values()), default=0)


def reach(now: Profile, then: Profile) -> float:
    """How far beyond its floor a distance has to be to be called, by the rows of both and the worst of their sketches."""
    errors = [max((column["values"]["error"] for column in side.values() if column["values"]), default=0.0) for side in (now, then)]
    return _gaps.reach(max(1, rows(now)), max(1, rows(then))) + sum(errors)


def compared(name: str, now: Json | None, then: Json | None, how: How) -> Iterator[Part | Note]:
    """What one column's comparison gives: its nulls where there are any, and its values or why they were not compared."""
    if now is None or then is None:
        yield Note(name, f"missing in the {'newest profile' if now is None else 'reference'}", changed=True)
    elif not now["rows"] or not then["rows"]:
        yield Note(name, f"the {'reference' if now['rows'] else 'newest profile'} counts no rows")
    else:
        yield from of_nulls(name, now["nulls"], now["rows"], then["nulls"], then["rows"], how)
        yield _values(name, now, then, how)


def _values(name: str, now: Json, then: Json, how: How) -> Part | Note:
    ours, theirs = _kind(now), _kind(then)
    if None in (ours, theirs):
        return Note(name, f"every value is null in {'the newest profile' if ours is None else 'the reference'}")
    if any(fnmatchcase(name, pattern) for pattern in how.nominal) or ours == theirs in ("text", "boolean"):
        return _categories(name, now["counts"], then["counts"], how)
    if ours != theirs and not {ours, theirs} <= {"number", "integer"}:
        return Note(name, f"{ours} now, {theirs} in the reference", changed=True)
    return _numbers(name, now["values"], then["values"], how) if ours in ("number", "integer") else Note(name, f"{ours}, which has no distribution")


def _kind(column: Json) -> str | None:
    """What a column holds by its counts of types; None where it holds nothing but nulls."""
    kinds = {KINDS.get(kind, kind) for kind in column["types"]}
    if len(kinds) > 1 and kinds != {"number", "integer"}:
        return f"a mix of {', '.join(sorted(kinds))}"
    return max(kinds, default=None)  # a fraction among whole numbers makes them all numbers


def _categories(name: str, now: Mapping[str, int] | None, then: Mapping[str, int] | None, how: How) -> Part | Note:
    if now is None or then is None or max(len(now), len(then)) > DISTINCT:
        return Note(name, "its values are not all counted in the profile: a name, prose or a fraction")
    n, m = sum(now.values()), sum(then.values())
    return too_few(name, n, m) if min(n, m) < how.rows else of_shares(name, now, then, how)


def _numbers(name: str, now: Json | None, then: Json | None, how: How) -> Part | Note:
    if now is None or then is None:
        return Note(name, f"the {'newest profile' if now is None else 'reference'} keeps no distribution of it")
    return too_few(name, now["n"], then["n"]) if min(now["n"], then["n"]) < how.rows else Part(name, gap(now, then), how.number, name)


def gap(now: Json, then: Json) -> Gap:
    """The Kolmogorov-Smirnov distance between what two sketches keep, its interval wider by the error of both.

    The test asks whether the distance is there even where both sketches err towards it. Sketches that still keep every value err by nothing, and
    the answer is that of the two tables. The interval is then the 95 % one, and with sketches at least a 93 % one.
    """
    import numpy as np

    error = now["error"] + then["error"]
    if not error:
        return _gaps.numbers(np.sort(now["items"]), np.sort(then["items"]))
    n, m = now["n"], then["n"]
    places = np.unique(np.concatenate([now["items"], then["items"]]))
    distance = float(np.abs(_below(now, places) - _below(then, places)).max())
    width = _gaps.reach(n, m) + error
    interval = max(0.0, distance - width), min(1.0, distance + width)
    return Gap(distance, interval, _gaps.chance(n, m, max(0.0, distance - error)), n, m, "Kolmogorov-Smirnov, from sketches")


def _below(values: Json, places: Any) -> Any:
    """The share of the weight at or below each place."""
    import numpy as np

    items, weights = _rising(values)
    return np.append(0, weights.cumsum())[np.searchsorted(items, places, side="right")] / values["n"]


def _rising(values: Json) -> tuple[Any, Any]:
    """The items in rising order, and how many values each stands for."""
    import numpy as np

    items, levels = values["items"], values["levels"]
    order = items.argsort(kind="stable")
    return items[order], np.repeat(2.0 ** np.arange(len(levels)), levels)[order]


def described(column: Json | None) -> Json:
    """What is kept of a column: counts, types, mean and deviation, and some quantiles with the error of their ranks."""
    if column is None:
        return None
    import numpy as np

    kept = {name: column[name] for name in ("rows", "nulls", "types", "mean", "deviation")}
    values = column["values"]
    if not values or not values["n"]:
        return kept
    items, weights = _rising(values)
    at = np.searchsorted(weights.cumsum(), np.array(SHARES) * values["n"] * (1 - 1e-12))
    quantiles = {f"{share:g}": float(items[place]) for share, place in zip(SHARES, at, strict=True)}
    return {**kept, "quantiles": quantiles, "rank_error": values["error"]}
