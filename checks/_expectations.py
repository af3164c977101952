"""Results of Great Expectations 1.x as Readings: the newest file, its expectations one by one, and what they say without a value of any row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent import UTC, Json, Reading, to_json
from agent.errors import DataError

SIZE = 32 << 20  # bytes in one result
FILES = 100_000  # results looked through for the newest
SHAPES = "a validation result (its `to_json_dict`, as a validation store keeps it) or a checkpoint result (its `describe()`)"
PREFIXES = ("expect_column_values_to_", "expect_column_pair_values_", "expect_column_", "expect_table_", "expect_")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What became of one expectation. `raised`: it could not be evaluated, which is not the same as failed."""

    name: str
    success: bool
    raised: bool
    severity: str
    reading: Reading

    @property
    def told(self) -> str:
        observed = self.reading.observed
        if observed is None:
            return self.name
        share = f"{observed:.3g} % of {self.reading.n} unexpected" if self.reading.unit == "%" else f"{observed:.6g}"
        return f"{self.name} ({share})"


@dataclass(frozen=True, slots=True)
class Result:
    """One file: when it was made, and its expectations."""

    place: str
    at: datetime
    expectations: tuple[Expectation, ...]


def newest(path: Path) -> Path:
    """The file itself, or of the results in a folder and below it the one written last."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path} of Great Expectations results; run its checkpoint, or mend `results`")
    found = [one for one, _ in zip(path.rglob("*.json"), range(FILES), strict=False)]
    if not found:
        raise DataError(f"the folder {path} holds no *.json; point `results` at the validation store of Great Expectations")
    try:
        return max(found, key=lambda one: (one.stat().st_mtime_ns, str(one)))
    except OSError as problem:
        raise DataError(f"{path}: a result went away while it was looked for ({problem.strerror}); the next look sees the others") from problem


def read(path: Path) -> Result:
    """The result in a file; DataError where it is none that is known."""
    try:
        if path.stat().st_size > SIZE:
            raise DataError(f"{path} has more than {SIZE:,} bytes, too many for a result; write it with result_format SUMMARY or BASIC")
        body = json.loads(path.read_text(encoding="utf-8"))
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{path} cannot be read as JSON ({str(problem)[:120]}); it may still be being written") from problem
    try:
        return Result(str(path), _when(body) or changed, tuple(_told_apart(_expectations(body))))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{path} is not {SHAPES} of Great Expectations 1.x: {_missed(problem)}") from problem


def _missed(problem: Exception) -> str:
    return f"it has no {problem}" if isinstance(problem, KeyError) else str(problem)[:120]


def _when(body: Mapping[str, Json]) -> datetime | None:
    """When the validation ran; the text of a checkpoint says nothing of it."""
    meta = body.get("meta") or {}
    stated = (meta.get("run_id") or {}).get("run_time") or meta.get("validation_time")
    if stated is None:
        return None
    at = datetime.fromisoformat(stated)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _expectations(body: Mapping[str, Json]) -> Iterator[Expectation]:
    if "validation_results" in body:
        for validation in body["validation_results"]:
            yield from (_expectation(one["expectation_type"], one["kwargs"], one) for one in validation["expectations"])
    else:
        for one in body["results"]:
            config = one["expectation_config"]
            yield _expectation(config["type"], config["kwargs"], one, config.get("severity"))


def _expectation(kind: str, kwargs: Mapping[str, Json], one: Mapping[str, Json], severity: str | None = None) -> Expectation:
    if not isinstance(one["success"], bool):
        raise ValueError(f"the success of {kind} is {one['success']!r:.40}, neither true nor false")
    rule = next(kind.removeprefix(prefix) for prefix in PREFIXES if kind.startswith(prefix) or prefix == PREFIXES[-1])
    raised = _raised(one.get("exception_info"))
    return Expectation(
        f"{_columns(kwargs)}.{rule}", one["success"], raised, str(severity or "critical").lower(), _reading(one.get("result") or {}, kwargs)
    )


def _columns(kwargs: Mapping[str, Json]) -> str:
    names = [kwargs[key] for key in ("column", "column_A", "column_B") if kwargs.get(key)] or kwargs.get("column_list") or ["table"]
    return "+".join(map(str, names))


def _raised(info: Json) -> bool:
    """Flat, or one such mapping for each metric that raised."""
    if not isinstance(info, Mapping):
        return False
    flat = info.get("raised_exception")
    return bool(flat) if flat is not None else any(_raised(inner) for inner in info.values())


def _reading(result: Mapping[str, Json], kwargs: Mapping[str, Json]) -> Reading:
    n = _number(result.get("element_count"))
    count = None if n is None else int(n)
    if (share := _number(result.get("unexpected_percent"))) is not None:
        return Reading(share, 100 * (1 - (_number(kwargs.get("mostly")) or 1.0)), n=count, unit="%")
    observed = _number(result.get("observed_value"))
    low, high = _number(kwargs.get("min_value")), _number(kwargs.get("max_value"))
    return Reading(observed, low if observed is not None and low is not None and observed < low else high, n=count)


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else None


def _told_apart(found: Iterator[Expectation]) -> Iterator[Expectation]:
    """Two expectations of one kind on one column get a number."""
    names: dict[str, int] = {}
    for one in found:
        names[one.name] = names.get(one.name, 0) + 1
        again = names[one.name] > 1
        yield Expectation(f"{one.name}#{names[one.name]}", one.success, one.raised, one.severity, one.reading) if again else one


def written(result: Result, failed: Sequence[Expectation]) -> bytes:
    """expectations.json: what failed, in numbers; the values that Great Expectations quotes are left where they are."""
    told = {"from": result.place, "at": result.at.isoformat(), "expectations": len(result.expectations), "failed": to_json(list(failed))}
    return json.dumps(told, indent=1).encode()
