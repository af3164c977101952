"""Writing down the rows that a model is trained on, so that it is known for ever what it learned from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

from agent.actions.lent import bound
from agent.actions.looks import Looking
from agent.errors import PlanError
from agent.model import Absent, Done, Json, Look, Try, to_json
from agent.pinning import MOST, pinned
from agent.workers import locator_to_json

FOLDER = "pins"


class Pin(Looking):
    """`table.pin {role, labels, from, to, folder, rows, held}`: the rows of a table in a window, as a file that is named by its sha256.

    Without `from` all its rows; `labels` is the role of the table with their labels; `rows` at most (5,000,000); `held` the share that is kept apart,
    to judge by. What the table's `exclude` leaves out is not in it.
    """

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"role", "labels", "from", "to", "folder", "rows", "held"})
    gives: ClassVar[frozenset[str]] = frozenset({"train", "held", "from", "to", "origin", "left"})

    def fits(self, args: Mapping[str, Json]) -> None:
        """PlanError when a table is not bound, or the share that is held back leaves nothing to learn from."""
        for role in (args["role"], args.get("labels")):
            if role is not None:
                bound(self.service, str(role), "table.pin")
        if not 0 <= float(args.get("held") or 0) < 1:
            raise PlanError(f"held: {args['held']} is no share below 1")

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        found = pinned(self._folder(args), _named(t))
        if found is None:
            return Absent(f"the rows of {args['role']} were not pinned yet")
        return Done(found, f"{found['train']['rows']:,} rows of {args['role']}, sha256 {found['train']['sha256'][:12]}")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        roles = {"table": str(args["role"]), **({"labels": str(args["labels"])} if args.get("labels") else {})}
        left = max(t.deadline - self.world.clock(), timedelta(milliseconds=50))
        job = {
            "check": "table.pin",
            "pin": {"to": str(self._folder(args)), "key": _named(t), "most": int(args.get("rows") or MOST), "held": float(args.get("held") or 0)},
            "window": [_moment(args["from"]), _moment(args["to"])] if args.get("from") else None,
            "locators": {word: locator_to_json(self.service.targets[role]) for word, role in roles.items()},
        }
        self.world.pool.call(job, left)

    def _folder(self, args: Mapping[str, Json]) -> Path:
        return (self.world.config.folder / str(args.get("folder") or FOLDER)).resolve()


def _named(t: Try) -> str:
    return t.key.replace("/", "-")


def _moment(value: Json) -> str:
    return str(to_json(value)) if isinstance(value, datetime) else str(value)
