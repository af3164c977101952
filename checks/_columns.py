"""Which columns of a table, or of two, a check looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeGuard

from agent import Columns, Kind, Table
from agent.errors import DataError


@dataclass(frozen=True, slots=True)
class Note:
    """A column that takes no part, and why; `changed` where that is itself a change."""

    name: str
    why: str
    changed: bool = False


def by_row(table: Table) -> TypeGuard[Columns]:
    """Whether rows leave the engine, and not only counts."""
    return "columns" in table.can


def left_out(notes: Sequence[Note], what: str) -> str:
    """Such as "; not compared: a: missing in live; and 3 more", changes first; nothing when there is none."""
    told = sorted(notes, key=lambda note: not note.changed)
    words = "; ".join(f"{note.name}: {note.why}" for note in told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")
    return f"; {what}: {words}" if words else ""


def wanted(live: Table, kinds: Mapping[str, Kind], reference: Mapping[str, Kind], columns: Sequence[str] | None) -> list[str]:
    """The names that the patterns match, in the tables' order; without patterns what is declared, else all that may have a distribution."""
    known = list(dict.fromkeys([*kinds, *reference]))
    if columns is None:
        return declared(live) or [name for name in known if _has_distribution(name, live, kinds.get(name, reference.get(name)))]
    for pattern in columns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise DataError(f"columns: '{pattern}' is in neither live nor reference; there is {', '.join(known[:12])}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in columns)]


def declared(live: Table) -> list[str]:
    """The declared features, prediction and score."""
    features = live.declared.get("features") or ()
    if isinstance(features, Mapping):
        features = features.get("names") or [f"{features.get('prefix', 'p')}{place}" for place in range(int(features["size"]))]
    return [*features, *answers(live)]


def answers(live: Table) -> list[str]:
    """The declared prediction and score."""
    return [live.declared[what] for what in ("prediction", "score") if live.declared.get(what)]


def is_class(name: str, live: Table, kinds: set[Kind | None]) -> bool:
    """Whether a column is the prediction and holds class labels, whichever way each side spells them."""
    return name == live.declared.get("prediction") and kinds <= {"integer", "text", "boolean"}


def _has_distribution(name: str, live: Table, kind: Kind | None) -> bool:
    names = [live.declared.get(what) for what in ("id", "entity", "version", "weight")]
    names += [rule["column"] for rule in live.declared.get("exclude") or ()]
    return name not in names and kind in ("number", "integer", "text", "boolean")
