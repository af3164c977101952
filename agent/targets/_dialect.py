"""The few ways in which engines write the same SQL; everything else a tally asks is one text for all of them (`_push`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.targets._sql import Stored


def _doubled(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _backslashed(text: str) -> str:
    signs = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}
    return "'" + "".join(signs.get(sign, sign) for sign in text) + "'"


def _coded(text: str) -> str:
    """What could end a text or a name, and all that is no sign, by its code."""
    return "".join(f"\\u{ord(sign):04x}" if sign in "\\'`" or sign < " " else sign for sign in text)


def _iso(at: datetime) -> str:
    return f"{at.year:04}-{at:%m-%d %H:%M:%S}.{at.microsecond:06}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's words. Templates take a column or a value in place of {}."""

    double: str
    text: str
    known: str  # a double, null where it is NaN
    micros: str  # a time as whole microseconds of its own clock, null where it is infinite
    instant: str  # a time with a zone, from UTC text
    wall: str  # a time without
    element: str  # {0}: a list, {1}: a place from 0
    length: str
    rint: str = "rint({})"
    quote: str = '"'
    text_literal: Callable[[str], str] = _doubled
    name_literal: Callable[[str], str] | None = None  # what stands between the quotes of a name, where they are not doubled
    binary: str = ""  # the order of text by code point, where it is not the only one
    takes_nul: bool = True
    local: bool = False  # whether the rows need not travel anyway: numbers are then put between cuts sooner here

    def name(self, column: str) -> str:
        """A name as SQL writes it, whatever is in it."""
        inside = self.name_literal(column) if self.name_literal else column.replace(self.quote, self.quote * 2)
        return self.quote + inside + self.quote

    def holds(self, text: str) -> bool:
        """Whether a text column can hold this at all; what cannot be there equals nothing."""
        return (self.takes_nul or "\0" not in text) and not any("\ud800" <= sign <= "\udfff" for sign in text)

    def string(self, text: str) -> str:
        """A text value, whatever is in it."""
        return self.text_literal(text)

    def number(self, value: float) -> str:
        """A double, to the last bit."""
        text = repr(float(value)) if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return f"CAST('{text}' AS {self.double})"

    def is_in(self, sql: str, values: Sequence[Any]) -> str:
        """Whether it equals one of these."""
        there = [self.literal(value) for value in values if not isinstance(value, str) or self.holds(value)]
        return f"{sql} IN ({', '.join(there)})" if there else "1 = 0"

    def literal(self, value: Any) -> str:
        """A boolean, a number or text."""
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        return self.string(value) if isinstance(value, str) else self.number(value)

    def at(self, at: datetime, stored: Stored) -> str:
        """An instant (aware UTC) or a wall clock (naive) as a time literal."""
        return (self.wall if stored.naive else self.instant).format(_iso(at))

    def as_double(self, column: str) -> str:
        return f"CAST({column} AS {self.double})"

    def as_text(self, column: str) -> str:
        return f"CAST({column} AS {self.text})"


_NULLIF = "NULLIF({0}, CAST('NaN' AS %s))"

POSTGRES = Dialect(
    double="double precision",
    text="text",
    known=_NULLIF % "double precision",
    micros="CASE WHEN isfinite({0}) THEN CAST(LEAST(floor(extract(epoch FROM {0}) * 1000000), 9223372036854775806) AS bigint) END",
    instant="TIMESTAMP WITH TIME ZONE '{}+00'",
    wall="TIMESTAMP '{}'",
    element="({0})[array_lower({0}, 1) + {1}]",
    length="CASE WHEN cardinality({0}) = 0 THEN 0 ELSE array_length({0}, 1) END",
    rint="round({})",  # of a double: to the nearest even, as everywhere here
    binary=' COLLATE "C"',
    takes_nul=False,
)
DUCKDB = Dialect(
    double="DOUBLE",
    text="VARCHAR",
    known=_NULLIF % "DOUBLE",
    micros="CASE WHEN isfinite({0}) THEN epoch_us({0}) END",
    instant="TIMESTAMPTZ '{}+00'",
    wall="TIMESTAMP '{}'",
    element="{0}[{1} + 1]",
    length="len({0})",
    rint="round_even({}, 0)",
    local=True,
)
SPARK = Dialect(
    double="DOUBLE",
    text="STRING",
    known="NULLIF({0}, CAST('NaN' AS DOUBLE))",
    micros="unix_micros(CAST({0} AS TIMESTAMP))",
    instant="TIMESTAMP '{}+00:00'",
    wall="TIMESTAMP_NTZ '{}'",
    element="get({0}, {1})",
    length="CASE WHEN {0} IS NOT NULL THEN size({0}) END",
    quote="`",
    text_literal=_backslashed,
)
TRINO = Dialect(
    double="double",
    text="varchar",
    known="CASE WHEN NOT is_nan({0}) THEN {0} END",
    micros="CAST(round(to_unixtime({0}) * 1000000) AS bigint)",
    instant="TIMESTAMP '{} UTC'",
    wall="TIMESTAMP '{}'",
    element="element_at({0}, {1} + 1)",
    length="cardinality({0})",
    rint="round({})",
)
BIGQUERY = Dialect(
    double="FLOAT64",
    text="STRING",
    known="CASE WHEN NOT IS_NAN({0}) THEN {0} END",
    micros="UNIX_MICROS(CAST({0} AS TIMESTAMP))",
    instant="TIMESTAMP '{}+00:00'",
    wall="DATETIME '{}'",
    element="{0}[SAFE_OFFSET({1})]",
    length="ARRAY_LENGTH({0})",
    rint="CAST(ROUND(CAST({} AS BIGNUMERIC), 0, 'ROUND_HALF_EVEN') AS FLOAT64)",  # of a double it would be away from zero
    quote="`",
    text_literal=lambda text: f"'{_coded(text)}'",
    name_literal=_coded,
)
