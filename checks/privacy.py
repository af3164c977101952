"""Whether what is logged is classed, and free of identifiers that nobody said would be there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from agent import Columns, Reading, Verdict, check, fail, nodata, ok, warn
from checks import _identifiers

Class = Literal["public", "internal", "personal", "sensitive", "identifier"]
MAY = ("personal", "sensitive", "identifier")  # classes in which an identifier is no surprise


@check(pillar="data", asks="Is each column classed, and free of identifiers that are not declared?", severity="ticket", answers=("DATA-09",))
def identifiers(live: Columns, *, classes: Mapping[str, Class], rows: int = 1000) -> Verdict:
    """Every column (features that lie in JSON too) needs a class in `classes`, by name or pattern. The newest `rows` are searched for mail addresses,
    IBANs, card numbers, telephone and social security numbers; one in a column that is classed public or internal, or not at all, fails.

    All classed and none found is ok, 80 % classed warns, fewer fail. What was found is told by column and kind, counted, and never shown or kept.
    """
    kinds = live.kinds()
    sorted_ = {name: next((one for pattern, one in classes.items() if fnmatchcase(name, pattern)), None) for name in kinds}
    newest = live.head(list(kinds), rows, newest="time" in live.declared)
    if not newest:
        return nodata("there are no rows", Reading(0, 1, unit="rows"))
    hits = {name: found for name in kinds if (found := _identifiers.found([row[name] for row in newest], name))}
    loose = {name: found for name, found in hits.items() if sorted_[name] not in MAY}
    share = sum(one is not None for one in sorted_.values()) / len(sorted_)
    reading = Reading(share, 1.0, n=len(newest), unit="columns classed")
    data = {"identifiers.json": json.dumps({"rows": len(newest), "classes": sorted_, "found": hits}, indent=1, sort_keys=True).encode()}
    if loose:
        return fail(f"identifiers where none should be: {_words(loose)}, in the newest {len(newest)} rows", reading, data=data)
    told = f"no undeclared identifier in the newest {len(newest)} rows; {share:.0%} of {len(sorted_)} columns are classed"
    bare = [name for name, one in sorted_.items() if one is None]
    told += f", not {', '.join(bare[:3])}" if bare else ""
    return ok(told, reading, data=data) if share == 1 else warn(told, reading, data=data) if share >= 0.8 else fail(told, reading, data=data)


def _words(loose: Mapping[str, Mapping[str, int]]) -> str:
    told: Sequence[str] = [f"{count} {kind} in {name}" for name, found in loose.items() for kind, count in found.items()]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
