"""A statement on the database of a target, in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agent.actions.lent import bound, may_change
from agent.actions.own import Outcome, Own, kept
from agent.config.filled import Filling
from agent.config.shape import Shape
from agent.config.steps import SQL, SqlStep, Verb
from agent.errors import ConfigError, PlanError
from agent.model import Json
from agent.targets._statements import names


class Statement(Own):
    """`sql.run {target, do, with, rows, keep, look, undo}`: `target` is the role of a table in SQLite or PostgreSQL; never run twice.

    What the database refuses, and what changes another number of rows than `rows`, is rolled back. `keep`: columns of the first row that comes back.
    """

    __slots__ = ()
    verb: ClassVar[Verb] = SQL
    shape: ClassVar[type[Shape]] = SqlStep

    def before(self, args: Mapping[str, Json]) -> Json:
        self._target(args)
        return super().before(args)

    def act(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        with self._connected(args) as table:
            came = table.carried(args["do"], _values(args, "do"), args.get("rows"))
        if came.refused:
            return Outcome(False, came.refused, {})
        fields = {} if args.get("look") else kept(args.get("keep") or {}, came.first, "the first row")
        return Outcome(True, f"{came.rows} rows changed", {"rows": came.rows, **fields})

    def see(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        with self._connected(args) as table:
            row = table.asked(args["look"], _values(args, "look"))
        value = next(iter(row.values()), None)
        done = bool(value)
        fields = kept((args.get("keep") or {}) if done and not args.get("gone") else {}, row, "the first row")
        return Outcome(done, f"the look gives {value!r:.80}", fields)

    def back(self, args: Mapping[str, Json]) -> Mapping[str, Json]:
        return {"target": args["target"], "do": args["undo"], **({"with": args["with"]} if "with" in args else {})}

    def _target(self, args: Mapping[str, Json]) -> Any:
        at = bound(self.service, str(args.get("target")), "a statement")
        may_change(self.service, at)
        with self.world.connections(at) as table:
            if not hasattr(table, "carried"):
                raise PlanError(f"the {at.role} of {self.service.name} ({at.scheme}) takes no statements; bind a table in SQLite or PostgreSQL")
        return at

    def _connected(self, args: Mapping[str, Json]) -> Any:
        return self.world.connections(self._target(args))


def _values(args: Mapping[str, Json], key: str) -> dict[str, Json]:
    """The values that a statement asks for, and no others."""
    given = args.get("with") or {}
    values = {name: given[name] for name in names(str(args[key]))}
    for name, value in values.items():
        if isinstance(value, (Mapping, list)):
            raise ConfigError(f"the value of :{name} is {value!r:.80}, which no column holds")
    return values
