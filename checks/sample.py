"""Rows as they are, kept with the finding: what an incident's snapshot holds."""

from __future__ import annotations

import json

from agent import Columns, Reading, Verdict, check, nodata, ok, to_json
from agent.errors import ConfigError

MOST = 1_000


@check(pillar="monitoring", asks="What do the newest rows look like?")
def sample(live: Columns, *, rows: int = 50) -> Verdict:
    """Always ok where there are rows: the newest `rows` of them, at most 1,000, are in rows.jsonl, which is kept as long as the finding.

    What the table's `exclude` leaves out is not in it. Rows may be about people: whoever reads the store reads them.
    """
    if not 1 <= rows <= MOST:
        raise ConfigError(f"rows lies between 1 and {MOST:,}, not {rows:,}")
    newest = live.head(list(live.kinds()), rows)
    if not newest:
        return nodata("there are no rows", Reading(0, 1, unit="rows"))
    lines = "".join(json.dumps(to_json(dict(row)), ensure_ascii=False, default=str) + "\n" for row in newest)
    said = f"the newest {len(newest)} row{'' if len(newest) == 1 else 's'} kept"
    return ok(said, Reading(len(newest), unit="rows"), data={"rows.jsonl": lines.encode("utf-8", "replace")})
