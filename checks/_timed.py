"""Where an inference's time goes, measured: operators, a curve over batch sizes, and other settings beside the one in use, in the same rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent import Json
from agent.errors import DataError, WatchkeeperError
from agent.stats import Ratio, interleaved, paired, quantile, quantile_interval
from checks._engines import Engine, Operators, Setting, tiled

ALONE = 0.3  # the part of the time in which the setting in use runs by itself
SURE = 0.05  # how often anything at all may be recommended that gains nothing
BASE, AGAIN = "as it is", "as it is, again"  # the second shows how much two of the same differ
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch size takes: seconds in the middle with their interval, the 99th percentile, bytes held at most (where known)."""

    size: int
    p50: float
    interval: tuple[float, float]
    p99: float
    rounds: int
    memory: int | None

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.size / self.p50


@dataclass(frozen=True, slots=True)
class Gain:
    """Another setting, and how many times as fast it is at each batch size."""

    told: str
    setting: Setting
    ratios: Mapping[int, Ratio]
    floor: float = 1.0  # what opening the same setting again changes, by where its weights happen to lie in memory

    @property
    def sure(self) -> bool:
        """Surely faster somewhere, and by more than the same setting opened again; surely slower nowhere."""
        return any(one.low > self.floor for one in self.ratios.values()) and all(one.high >= 1 for one in self.ratios.values())

    @property
    def gain(self) -> float:
        """The share of the time that it surely saves at the batch size where it saves most."""
        return 1 - 1 / max(1.0, *(one.low for one in self.ratios.values()))


@dataclass(frozen=True, slots=True)
class Timed:
    """All that was measured of one model."""

    batches: Sequence[Batch]
    operators: Operators
    at: int  # the batch size whose operators they are
    gains: Sequence[Gain]
    broken: Mapping[str, str]

    @property
    def best(self) -> Gain | None:
        """The setting that surely saves most; of equals the first that was tried."""
        return max((one for one in self.gains if one.sure), key=lambda one: one.gain, default=None)


def judged(times: Mapping[int, Mapping[str, Sequence[float]]], settings: Mapping[str, Setting]) -> list[Gain]:
    """Every other setting beside BASE, from times taken in the same rounds. Nothing here measures.

    The chance that any is called sure by accident is at most SURE, whatever the noise: each of the intervals gets its part of it (Bonferroni).
    Where AGAIN was timed, what is not surely faster than that differs from BASE is no gain.
    """
    others = {told: setting for told, setting in settings.items() if told not in (BASE, AGAIN)}
    level = 1 - SURE / max(1, len(others) * len(times))
    same = [paired(took[BASE], took[AGAIN], level) for took in times.values() if AGAIN in took]
    floor = max([1.0, *(max(one.high, 1 / one.low) for one in same)])
    found = {told: {size: paired(took[BASE], took[told], level) for size, took in times.items()} for told in others}
    return [Gain(told, others[told], ratios, floor) for told, ratios in found.items()]


def measure(
    engine: Engine, base: Setting, fed: Mapping[str, Any], batches: Sequence[int], seconds: float, room: int, scratch: Path, tell: Tell
) -> Timed:
    """Everything, in about so many seconds, with no more settings open at once than so many bytes hold.

    DataError where the model does not take the rows, or answers with what is no number.
    """
    sizes = [engine.fixed] if engine.fixed else sorted(set(batches))
    try:
        lots = {size: tiled(fed, size) for size in sizes}
    except MemoryError as problem:
        raise DataError(f"memory does not hold a batch of {max(sizes):,} rows; time smaller ones") from problem
    memory = _memory(engine, base, lots)
    runs, broken = _opened(engine, base, room // max([1, *memory.values()]))
    _sound(runs[BASE][1](lots[sizes[0]]))
    tell(0.1, "where the time goes")
    operators = engine.operators(base, lots[sizes[0]], scratch)
    times: dict[int, dict[str, list[float]]] = {}
    alone: dict[int, list[float]] = {}  # for the curve: idle threads of other settings would be in the way
    for place, (size, lot) in enumerate(lots.items()):
        tell(0.2 + 0.7 * place / len(lots), f"timing {len(runs)} settings at batch {size}")
        alone[size] = interleaved({BASE: _run(runs[BASE][1], lot)}, 2_000, ALONE * seconds / len(lots))[BASE]
        times[size] = interleaved({told: _run(one[1], lot) for told, one in runs.items()}, 10_000, (1 - ALONE) * seconds / len(lots))
    curve = [_batch(size, took, memory.get(size)) for size, took in alone.items()]
    return Timed(curve, operators, sizes[0], judged(times, {told: one[0] for told, one in runs.items()}), broken)


def _opened(engine: Engine, base: Setting, most: int) -> tuple[dict[str, tuple[Setting, Any]], dict[str, str]]:
    runs, broken = {BASE: (base, engine.opened(base))}, dict[str, str]()
    if most > 1:
        runs[AGAIN] = base, engine.opened(base)
    for setting in engine.settings(base):
        if len(runs) >= max(1, most):
            broken[setting.told(base)] = f"the memory that is allowed holds {len(runs)} settings at once; allow it more"
            continue
        try:
            runs[setting.told(base)] = setting, engine.opened(setting)
        except WatchkeeperError as problem:
            broken[setting.told(base)] = str(problem)
    return runs, broken


def _run(run: Callable[[Mapping[str, Any]], object], lot: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: run(lot)


def _batch(size: int, took: Sequence[float], memory: int | None) -> Batch:
    rising = sorted(took)
    return Batch(size, quantile(rising, 0.5), quantile_interval(rising, 0.5), quantile(rising, 0.99), len(took), memory)


def _sound(outputs: Sequence[Any]) -> None:
    import numpy as np

    if any(value.dtype.kind == "f" and not np.isfinite(value).all() for value in outputs if hasattr(value, "dtype")):
        raise DataError("the model answers these rows with something that is no number; look at that before its speed")


def _memory(engine: Engine, base: Setting, lots: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """Bytes that this process holds more at most once the model is open and has answered batches up to each size; none where it cannot be seen."""
    found: dict[int, int] = {}
    with suppress(OSError, StopIteration):
        before = _status("VmRSS")
        run = engine.opened(base)
        for size, lot in lots.items():
            Path("/proc/self/clear_refs").write_text("5")  # the most that was ever held begins anew
            run(lot)
            found[size] = max(0, _status("VmHWM") - before)
    return found


def _status(word: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def report(found: Timed, **more: Json) -> Mapping[str, Json]:
    """As JSON."""
    whole, best = found.operators.whole, found.best
    kinds = [*found.operators.kinds.items(), ("between operators", found.operators.between)]
    broken = [{"setting": told, "outcome": "broken", "why": why} for told, why in found.broken.items()]
    return {
        **more,
        "batches": [{**asdict(one), "interval": list(one.interval), "rate": one.rate} for one in found.batches],
        "operators": {
            "batch": found.at,
            "kinds": [{"name": name, "share": took / whole} for name, took in _most(kinds)],
            "nodes": [{"name": name, "operator": kind, "share": took / whole} for name, (kind, took) in _most_nodes(found.operators)],
        },
        "settings": [*map(_setting, found.gains), *broken],
        "recommended": None if best is None else best.told,
        "floor": max((one.floor for one in found.gains), default=1.0),
    }


def _setting(one: Gain) -> Mapping[str, Json]:
    ratios = {str(size): [round(ratio.middle, 4), round(ratio.low, 4), round(ratio.high, 4)] for size, ratio in one.ratios.items()}
    slower = any(ratio.high < 1 for ratio in one.ratios.values())
    outcome = "faster" if one.sure else "slower" if slower else "not surely faster"
    return {"setting": one.told, **asdict(one.setting), "outcome": outcome, "gain": round(one.gain, 4) if one.sure else 0.0, "ratios": ratios}


def _most(kinds: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return sorted(kinds, key=lambda one: (-one[1], one[0]))


def _most_nodes(operators: Operators, most: int = 15) -> list[tuple[str, tuple[str, float]]]:
    return sorted(operators.nodes.items(), key=lambda one: (-one[1][1], one[0]))[:most]


def as_bytes(told: Mapping[str, Json]) -> bytes:
    """The report as a file, with no number that JSON does not know."""
    return json.dumps(_finite(told), indent=1, allow_nan=False).encode()


def _finite(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and abs(value) == float("inf") else value
