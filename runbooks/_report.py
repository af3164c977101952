"""What a job of quantizing found, as one JSON value: the table, the picture, the page and the manifest are made of it and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from agent import Json
from runbooks._choose import PLAIN, Choice, Limits, Measured, choose, kept_in_words, ratios, slowest
from runbooks._graph import Graph
from runbooks._latency import spread
from runbooks._layers import told
from runbooks._measure import Found, machine
from runbooks._settings import Settings


def report(found: Found, graph: Graph, given: Settings, more: Mapping[str, Json]) -> dict[str, Json]:
    """Everything that was measured, refused and left untried, and what it comes to."""
    limits = Limits(given.least, given.largest, given.speed)
    choice = choose(found.plain, found.variants, limits)
    known = {one.name: one for one in found.variants}
    return {
        "outcome": "better" if choice.best else "none",
        "why": _why(found, known, choice),
        "chosen": choice.best,
        "champion": {
            "sha256": graph.sha256,
            "size": graph.size,
            "opset": graph.opset,
            "operators": dict(graph.operators),
            "weights": dict(graph.weights),
            "batch": graph.batch,
            "any_length": list(graph.open),
        },
        "rows": {"calibration": found.rows[0], "compared": found.rows[1]},
        "judged_by": found.kind,
        "limits": asdict(limits),
        "machine": {"processor": machine(), "threads": given.threads, "device": given.device},
        "variants": [*_variants(found, choice)],
        "untried": dict(found.untried),
        "layers": list(told(found.layers)),
        **more,
    }


def _why(found: Found, known: Mapping[str, Measured], choice: Choice) -> str:
    if choice.best is None:
        said = [f"{name}: {why}" for name, why in {**choice.refused, **found.broken}.items()]
        return (
            f"none of {len(said)} variants is better; {'; '.join(said)}"
            if said
            else "there is nothing that this graph's operators give reason to try"
        )
    best = known[choice.best]
    ratio = slowest(found.plain, best)
    size = f"{best.size / found.plain.size:.2f}x the size"
    return f"{choice.best}: {size}, at least {ratio.middle:.2f}x ({ratio.low:.2f} to {ratio.high:.2f}) as fast, {kept_in_words(best.quality)}"


def _variants(found: Found, choice: Choice) -> Iterator[dict[str, Json]]:
    yield _one(found, found.plain, "", "")
    for one in found.variants:
        outcome = "chosen" if one.name == choice.best else "refused" if one.name in choice.refused else "good"
        tied = "as fast, and no better" if one.name in choice.tied else "surely slower than the fastest"
        yield _one(found, one, outcome, {"chosen": "", "refused": choice.refused.get(one.name, ""), "good": tied}[outcome])
    for name, why in found.broken.items():
        yield {"name": name, "tried": found.why[name], "outcome": "broken", "why": why}


def _one(found: Found, one: Measured, outcome: str, why: str) -> dict[str, Json]:
    speeds = {str(size): _speed(found.plain, one, size) for size in sorted(one.times)}
    quality = asdict(one.quality) | {"cosine": list(one.quality.cosine), "in_words": kept_in_words(one.quality)}
    return {
        "name": one.name,
        "tried": found.why.get(one.name, ""),
        "outcome": outcome,
        "why": why,
        "size": one.size,
        "share": round(one.size / found.plain.size, 4),
        "memory": found.memory.get(one.name),
        "speed": speeds,
        "slowest": list(_numbers(slowest(found.plain, one))),
        "quality": quality,
    }


def _speed(plain: Measured, one: Measured, size: int) -> dict[str, Json]:
    """Seconds, and how many times as fast, with the interval of that."""
    middle, late = spread(one.times[size])
    return {"p50": middle, "p99": late, "ratio": list(_numbers(ratios(plain, one)[size])), "rounds": len(one.times[size])}


def _numbers(ratio: Any) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in (ratio.middle, ratio.low, ratio.high))


def metrics(found: Mapping[str, Json]) -> dict[str, float]:
    """The numbers of the chosen one, for the manifest; all of them finite."""
    best = next(one for one in found["variants"] if one["outcome"] == "chosen")
    plain = next(one for one in found["variants"] if one["name"] == PLAIN)
    quality = best["quality"]
    numbers = {
        "size": best["size"],
        "size_before": plain["size"],
        "kept": quality["kept"],
        "fidelity_db": quality["fidelity"],
        "cosine": quality["cosine"][0],
        "cosine_least": quality["cosine"][1],
        "worst": quality["worst"],
        "accuracy_before": quality["before"],
        "accuracy": quality["after"],
        "lost": quality["lost"],
        "won": quality["won"],
        "memory": best["memory"],
        "memory_before": plain["memory"],
    }
    for size, speed in best["speed"].items():
        numbers |= {f"p50_batch_{size}": speed["p50"], f"p99_batch_{size}": speed["p99"]}
        numbers |= {f"p50_before_batch_{size}": plain["speed"][size]["p50"], f"speed_batch_{size}": speed["ratio"][0]}
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}
