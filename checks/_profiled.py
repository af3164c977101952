"""What a profile is taken of, and what is said of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import Columns, Json, Reading, Verdict, admit, logged, module, ok, warn
from agent.errors import ArtefactError, DataError
from checks._engines import LENGTH, Engine, Onnx
from checks._engines_torch import Torch
from checks._timed import Timed, as_bytes, report
from checks._timed_page import page


def engine(path: Path, factory: str | None, memory: int) -> Engine:
    """What runs the model. ArtefactError for what must not be opened, or is no model by itself."""
    found = admit(path, largest=memory)
    if found.format == "onnx":
        return Onnx(found, memory)
    if found.format in ("safetensors", "torch") and factory:
        return Torch(module(factory, found))
    raise ArtefactError(
        f"{path} is {found.format}; weights need a factory (module:function) that makes their module, and other formats an ONNX export"
    )


def rows(engine: Engine, live: Columns | None, features: Sequence[str], most: int) -> tuple[Mapping[str, Any], str]:
    """What the model is asked, and in words where that comes from."""
    if live is None:
        return engine.made_up(most), f"rows were made up: normal numbers, whole ones of 0 and 1, {LENGTH} where an axis may have any length"
    asked = [row if isinstance(row, Mapping) else {"inputs": row} for row in _newest(live, most)]
    held = [{name: _listed(value) for name, value in row.items()} for row in asked]
    if not held:
        raise DataError("there are no rows to ask the model; give it others, or none, and rows are made up")
    shapes = [tuple(len(value) if isinstance(value, list) else 0 for value in row.values()) for row in held]
    (common, count), *_ = Counter(shapes).most_common(1)
    alike = [row for row, shape in zip(held, shapes, strict=True) if shape == common]
    columns = {name: [row[name] for row in alike] for name in alike[0]}
    return engine.taken(columns, features), f"{count} rows of the table were asked" + (
        ", those of the commonest lengths" if count < len(held) else ""
    )


def _newest(live: Columns, most: int) -> Iterator[Json]:
    """Logged inputs where the table says which columns those are, else whole rows; the newest where it says when they came."""
    if live.declared.get("features"):
        return logged(live, most)
    return iter(live.head(list(live.kinds()), most, newest="time" in live.declared))


def _listed(value: Json) -> Json:
    """A list that a table hands over as text, as a list."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def verdict(told: Timed, engine: Engine, path: Path, whence: str, threads: int, worth: float) -> Verdict:
    """Warns where something is left lying."""
    first, best = told.batches[0], told.best
    kind, took = max(told.operators.kinds.items(), key=lambda one: one[1], default=("nothing", 0.0))
    said = (
        f"{path.resolve().parent.name}/{path.name}: {_ms(first.p50)} at batch {first.size}, {took / (told.operators.whole or 1):.0%} of it in {kind}"
    )
    parts = {f"batch {one.size}": Reading(one.p50, None, one.interval, one.rounds, "s") for one in told.batches}
    machine = f"{engine.runtime} with {threads} thread{'s' if threads > 1 else ''} on this machine"
    made: dict[str, Json] = {"model": str(path), "runtime": engine.runtime, "threads": threads, "rows": whence}
    data = report(told, **made)
    lines = [
        f"{said}; {_advice(told)}",
        f"{machine}; {whence}",
        *_curve(told),
        *(f"{name} cannot be tried: {why}" for name, why in told.broken.items()),
    ]
    left = best is not None and best.gain >= worth
    reason = "\n".join(lines)
    files = {"profile.json": as_bytes(data), "profile.html": page("warn" if left else "ok", reason, data).encode()}
    return (warn if left else ok)(reason, Reading(first.p50, None, first.interval, first.rounds, "s"), parts=parts, data=files)


def _advice(told: Timed) -> str:
    best = told.best
    if best is None:
        return f"none of {len(told.gains)} other settings is surely faster" if told.gains else "there is no other setting to try"
    size, ratio = max(best.ratios.items(), key=lambda one: one[1].low)
    return f"{best.told} would surely save {best.gain:.0%} at batch {size} ({ratio.middle:.2f}x, {ratio.low:.2f} to {ratio.high:.2f})"


def _curve(told: Timed) -> list[str]:
    first, most = told.batches[0], max(told.batches, key=lambda one: one.rate)
    if most is first or most.rate <= first.rate:
        return []
    return [f"{most.size} rows at once give {most.rate:,.0f} rows a second, {most.rate / first.rate:.1f} times as many as {first.size} at a time"]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
