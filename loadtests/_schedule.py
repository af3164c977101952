"""When each request is meant to be sent: the whole schedule, drawn before the run, so that no slow answer can hold back what comes after it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from loadtests._spec import Arrivals

MOST = 10_000_000  # requests of one run: 43 bytes of clocks each, so 430 MB
FASTEST = 1_000_000.0  # requests a second: far beyond what any machine sends, so a slip of the pen
LONGEST = 31 * 86_400.0  # seconds
LINE = 4096  # bytes; a line of a file of times is a number, or a comment
SPILL = 6.0  # standard deviations by which a Poisson count may exceed its mean before more than one draw in a billion is short


def times(arrivals: Arrivals) -> Any:
    """The intended times in seconds since the start: float64, rising, all within the run. The same arrivals give the same times.

    constant: the first at 0, then every 1/rate. poisson: exponential gaps from PCG64 (a soak is a long one). ramp and spike: a Poisson process
    whose rate changes, by time rescaling (Cinlar, Introduction to Stochastic Processes, 1975): unit-rate arrivals taken through the inverse of the
    cumulative rate. replayed: the file's times, less the first. ConfigError: what could never be sent, or not be held in memory.
    """
    if arrivals.pattern == "replayed":
        return _replayed(Path(arrivals.times))
    _checked(arrivals)
    return _DRAWN[arrivals.pattern](arrivals)


def _constant(arrivals: Arrivals) -> Any:
    import numpy as np

    every = np.arange(math.ceil(arrivals.rate * arrivals.seconds), dtype=np.float64) / arrivals.rate
    return every[every < arrivals.seconds]


def _poisson(arrivals: Arrivals) -> Any:
    return _unit(arrivals.rate * arrivals.seconds, arrivals.seed) / arrivals.rate


def _ramp(arrivals: Arrivals) -> Any:
    """From `begin` to `rate` in a straight line: the cumulative rate is a parabola, and its inverse is written so that no digits are lost."""
    import numpy as np

    begin, slope = arrivals.begin, (arrivals.rate - arrivals.begin) / arrivals.seconds
    passed = _unit(_expected(arrivals), arrivals.seed)
    return _inside(2 * passed / (begin + np.sqrt(np.maximum(begin * begin + 2 * slope * passed, 0.0))), arrivals.seconds)


def _spike(arrivals: Arrivals) -> Any:
    import numpy as np

    at = np.array([0.0, arrivals.peak_at, arrivals.peak_at + arrivals.peak_for, arrivals.seconds])
    passed = np.concatenate(([0.0], np.cumsum(np.diff(at) * (arrivals.rate, arrivals.peak, arrivals.rate))))
    return _inside(np.interp(_unit(float(passed[-1]), arrivals.seed), passed, at), arrivals.seconds)


_DRAWN: dict[str, Callable[[Arrivals], Any]] = {"constant": _constant, "poisson": _poisson, "ramp": _ramp, "spike": _spike}


def _unit(length: float, seed: int) -> Any:
    """Arrivals of a Poisson process of rate 1 on [0, length)."""
    import numpy as np

    draw = np.random.Generator(np.random.PCG64(seed))
    at = np.cumsum(draw.exponential(1.0, int(length + SPILL * math.sqrt(length) + 16)))
    while at[-1] < length:
        at = np.concatenate((at, at[-1] + np.cumsum(draw.exponential(1.0, 1024))))
    return at[at < length]


def _inside(at: Any, seconds: float) -> Any:
    """Rounding may put the last one on the very end."""
    return at[at < seconds]


def _expected(arrivals: Arrivals) -> float:
    """How many requests there will be, about."""
    if arrivals.pattern == "ramp":
        return (arrivals.begin + arrivals.rate) / 2 * arrivals.seconds
    if arrivals.pattern == "spike":
        return arrivals.rate * (arrivals.seconds - arrivals.peak_for) + arrivals.peak * arrivals.peak_for
    return arrivals.rate * arrivals.seconds


def busiest(at: Any) -> int:
    """How many of these rising times lie within the busiest second."""
    import numpy as np

    at = np.array(at)
    return int((np.searchsorted(at, at + 1.0) - np.arange(len(at))).max(initial=0))


def _checked(arrivals: Arrivals) -> None:
    """ConfigError for a schedule that cannot be meant."""
    wrong = [_rate_wrong("rate", arrivals.rate)]
    if arrivals.pattern not in _DRAWN:
        wrong.append(f"pattern is {arrivals.pattern!r}; it is one of {', '.join([*_DRAWN, 'replayed'])}")
    if not 0 < arrivals.seconds <= LONGEST:
        wrong.append(f"a run takes more than 0 and at most {LONGEST:,.0f} seconds (31 days), not {arrivals.seconds:g}")
    if arrivals.pattern == "ramp" and not 0 <= arrivals.begin <= FASTEST:
        wrong.append(f"begin is {arrivals.begin:g} requests a second; a ramp begins with 0 to {FASTEST:,.0f}")
    if arrivals.pattern == "spike":
        wrong += [_rate_wrong("peak", arrivals.peak), _peak_wrong(arrivals)]
    if not 0 <= arrivals.seed < 2**63:
        wrong.append(f"seed is {arrivals.seed}; it is a whole number from 0 to 2^63")
    wrong = [one for one in wrong if one] or [_many(_expected(arrivals))]
    if any(wrong):
        raise ConfigError([f"the load's schedule: {one}" for one in wrong])


def _rate_wrong(name: str, rate: float) -> str:
    return "" if 0 < rate <= FASTEST else f"{name} is {rate:g} requests a second; it is more than 0 and at most {FASTEST:,.0f}"


def _peak_wrong(arrivals: Arrivals) -> str:
    at, length, whole = arrivals.peak_at, arrivals.peak_for, arrivals.seconds
    within = at >= 0 and length > 0 and at + length <= whole
    return "" if within else f"the spike, {length:g} s from {at:g} s on, does not lie within the run of {whole:g} s"


def _many(count: float) -> str:
    if count <= MOST:
        return ""
    return (
        f"about {count:,.0f} requests are more than the {MOST:,} whose clocks one run holds in memory; shorten it, lower the rate, or run it in parts"
    )


def _replayed(path: Path) -> Any:
    """The times of a file, one a line, in seconds since anything; blank lines and lines that begin with # say nothing."""
    import numpy as np

    at: list[float] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LINE), b""), 1):
                at += _moment(line, f"{path}:{number}")
                if len(at) > MOST:
                    raise ConfigError(f"{path}:{number}: {_many(len(at))}")
    except OSError as problem:
        raise ConfigError(f"{path}: the file of times cannot be read: {problem.strerror}") from problem
    if not at:
        raise ConfigError(f"{path}: there is no time in it; write one a line, in seconds")
    late = next((place for place, (one, after) in enumerate(pairwise(at)) if after < one), None)
    if late is not None:
        raise ConfigError(f"{path}: the times must rise, but after {at[late]!r} comes {at[late + 1]!r}; sort the file")
    if at[-1] - at[0] > LONGEST:
        raise ConfigError(f"{path}: the times span {at[-1] - at[0]:,.0f} s, more than {LONGEST:,.0f} (31 days); are they seconds?")
    return np.array(at) - at[0]


def _moment(line: bytes, where: str) -> list[float]:
    text = line.decode("utf-8", "replace").strip()
    if not text or text.startswith("#"):
        return []
    try:
        value = float(text) if len(line) < LINE else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {text[:40]!r} is not a time in seconds")
    return [value]
