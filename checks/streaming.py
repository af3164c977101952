"""Detectors of River, which read a stream value by value, over columns of the live table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from agent import Columns, Json, Reading, Verdict, Window, check, fail, nodata, ok, spell
from agent.errors import ConfigError, DataError

DETECTORS = ("ADWIN", "KSWIN", "PageHinkley")
BINARY = ("DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW")  # for a stream of 0 and 1, such as whether a prediction was wrong
RIVER = "river is not installed; install watchkeeper[river] where Watchkeeper runs"


@dataclass(frozen=True, slots=True)
class Heard:
    """One column as a detector heard it: values in all and in the window, when it called a change of late, and whether older values were left out."""

    name: str
    fed: int
    new: int
    called_at: tuple[float, ...]
    cut: bool


@check(pillar="monitoring", asks="Does a detector of River call a change in a stream of live values?", cause="drift")
def river(
    live: Columns,
    window: Window,
    *,
    columns: list[str],
    detector: str = "ADWIN",
    settings: dict[str, Json] | None = None,
    replay: timedelta = timedelta(days=1),
    hold: timedelta | None = None,
    values_at_most: int = 100_000,
) -> Verdict:
    """Fails while the detector's latest call in any column is at most `hold` old (default: three windows), by event time.

    River's detectors cannot be written down, so each look makes a fresh one for each column and feeds it, in the order of event time, the values
    of the last `replay` before the window and of the window, at most `values_at_most` of them, the newest. `settings` go to the detector as they are.
    Nulls and infinities are not fed. A window without a value in any column is nodata. How often it is wrong is River's own affair: no rate is
    promised, and a second finding confirms nothing, for it hears the same values again.
    """
    make = _maker(detector, settings or {})
    rows, since = live.between(window.start - replay, window.end), (window.end - (hold or 3 * window.length)).timestamp()
    binary = detector in BINARY
    heard = [_heard(rows, name, make, window, since, binary, values_at_most) for name in columns]
    parts = {one.name: Reading(float(len(one.called_at)), 0.0, n=one.fed, unit="calls") for one in heard}
    if not any(one.new for one in heard):
        return nodata(f"no value of {', '.join(columns)} in this window", parts=parts)
    called = sorted((one for one in heard if one.called_at), key=lambda one: -one.called_at[-1])
    reading = Reading(float(len(called)), 0.0, n=len(heard), unit="columns")
    about = f"after {sum(one.fed for one in heard)} values" + (f", the newest {values_at_most} a column" if any(one.cut for one in heard) else "")
    if called:
        words = ", ".join(f"{one.name} at {datetime.fromtimestamp(one.called_at[-1], UTC):%H:%M:%S}" for one in called[:3])
        more = f" and {len(called) - 3} more" if len(called) > 3 else ""
        return fail(f"{detector} called a change in {words}{more}, within {spell(hold or 3 * window.length)}, {about}", reading, parts=parts)
    return ok(f"{detector} calls no change in {', '.join(columns)} {about}", reading, parts=parts)


def _maker(detector: str, settings: Mapping[str, Json]) -> Any:
    """What makes a fresh detector; one that draws at random is given a seed, so that a window judged again is judged alike."""
    if detector not in (*DETECTORS, *BINARY):
        raise ConfigError(f"no detector '{detector}'; there is {', '.join((*DETECTORS, *BINARY))}")
    try:
        drift = import_module("river.drift.binary" if detector in BINARY else "river.drift")
    except ImportError as problem:
        raise ConfigError(RIVER) from problem
    kind = getattr(drift, detector)
    given = {"seed": 0, **settings} if detector == "KSWIN" else dict(settings)
    return lambda: kind(**given)


def _heard(rows: Columns, name: str, make: Any, window: Window, since: float, binary: bool, most: int) -> Heard:
    import numpy as np

    times, values = _stream(rows, name)
    if binary and not np.isin(values, (0.0, 1.0)).all():
        raise DataError(f"column '{name}' holds more than 0 and 1, and this detector takes nothing else; use one of {', '.join(DETECTORS)}")
    cut = len(values) > most
    times, values = times[-most:], values[-most:]
    calls = _calls(make, values.tolist(), binary)
    late = tuple(at for at in times[calls].tolist() if at >= since)
    return Heard(name, len(values), int((times >= window.start.timestamp()).sum()), late, cut)


def _stream(rows: Columns, name: str) -> tuple[Any, Any]:
    """Times and finite values of a column, in the order of event time; what is equally old stays in the order it is stored in."""
    import numpy as np

    kind = rows.kinds().get(name)
    if kind not in ("number", "integer", "boolean"):
        raise DataError(f"column '{name}' {'is missing' if kind is None else f'holds {kind}'}; a detector hears numbers")
    times, values = (np.concatenate([np.empty(0), *map(_floats, rows.column(one))]) for one in (rows.declared["time"]["column"], name))
    known = np.isfinite(values) & np.isfinite(times)
    order = np.argsort(times[known], kind="stable")
    return times[known][order], values[known][order]


def _floats(chunk: Any) -> Any:
    return chunk.astype("float64")  # null is None among booleans, and becomes NaN


def _calls(make: Any, values: Sequence[float], binary: bool) -> list[int]:
    """The places at which it called. What it cannot take it says in many ways, and one in Rust ends in an error that is no Exception."""
    called = []
    try:
        detector = make()
        for place, value in enumerate(values):
            detector.update(bool(value) if binary else value)
            if detector.drift_detected:
                called.append(place)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        raise ConfigError(f"the detector does not take its settings: {type(problem).__name__}: {str(problem)[:200]}") from problem
    return called
