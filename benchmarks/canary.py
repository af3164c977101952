"""Canaries whose truth is known: good ones rolled back, bad ones promoted, how soon either is proved, beside a test that is peeked at."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from scipy import stats

from agent.stats import clopper_pearson
from benchmarks._parts import parts
from checks._arms import arranged, counted
from checks._canary import Evidence, averaged, further, harm_ratios, rates, safe_ratios, summed
from checks._hits import Hits

ALPHA = 0.01
PAIRS, LOOKS, CELL, AT_ONCE = 5_000, 300, 100, 500  # canaries, looks at each, requests between two looks, canaries computed side by side
Simulated = Callable[[Any, int, int], Any]  # random, looks, canaries -> counts (looks, canaries, 4)


def say(figure: str, value: float | None, **more: Any) -> None:
    print(json.dumps({"figure": figure, "value": value, **more}), flush=True)


# Canaries


def steady(p_b: float, p_c: float, weight: float, cell: int = CELL) -> Simulated:
    def draw(random: Any, looks: int, canaries: int) -> Any:
        n_c = random.binomial(cell, weight, (looks, canaries))
        return _drawn(random, cell - n_c, n_c, p_b, p_c)

    return draw


def _drawn(random: Any, n_b: Any, n_c: Any, p_b: Any, p_c: Any) -> Any:
    return np.stack([n_b, random.binomial(n_b, p_b), n_c, random.binomial(n_c, p_c)], axis=-1)


def troubled(random: Any, looks: int, canaries: int) -> Any:
    """Incidents common to both arms (a twentieth of the cells, up to half of all requests), and a weight that goes 1, 10, 50 %."""
    rate = np.where(random.random((looks, canaries)) < 0.05, random.random((looks, canaries)) / 2, 0.001)
    weight = np.repeat([0.01, 0.1, 0.5], looks // 3)[:, None]
    n_c = random.binomial(CELL, weight, (looks, canaries))
    return _drawn(random, CELL - n_c, n_c, rate, rate)


# The check's own arithmetic, on many canaries as if each were a stream


def found(draw: Simulated, canaries: int, looks: int = LOOKS, seed: int = 0) -> tuple[Any, Any, Any]:
    """For each canary the requests of the candidate when harm was proved (infinite: never), the same among four metrics, and for the peeked test."""
    when, among, peeked = [], [], []
    for counts in _batches(draw, canaries, looks, seed):
        ratios = harm_ratios(counts, rates(counts, np.zeros(counts.shape[1:])), (0.0,))
        way = averaged(summed(ratios, np.full(ratios.shape[1:], -np.inf), 0))
        when.append(_first(way >= math.log(1 / ALPHA), counts))
        among.append(_first(way >= math.log(4 / ALPHA), counts))
        peeked.append(_first(_peeked(counts) <= ALPHA, counts))
    return np.concatenate(when), np.concatenate(among), np.concatenate(peeked)


def _batches(draw: Simulated, canaries: int, looks: int, seed: int) -> Iterator[Any]:
    for number in range(0, canaries, AT_ONCE):
        yield draw(np.random.default_rng((seed, number)), looks, min(AT_ONCE, canaries - number))


def _first(proved: Any, counts: Any) -> Any:
    requests = np.cumsum(counts[..., 2], axis=0)
    return np.where(proved.any(axis=0), np.take_along_axis(requests, proved.argmax(axis=0)[None], axis=0)[0], np.inf)


def _peeked(counts: Any) -> Any:
    """The exact test of a fixed number of errors (given them, how many come from the candidate), asked after every look."""
    n_b, x_b, n_c, x_c = np.moveaxis(np.cumsum(counts, axis=0), -1, 0)
    return stats.binom.sf(x_c - 1, x_b + x_c, n_c / (n_b + n_c))


def promoted(draw: Simulated, margin: float, canaries: int, looks: int, seed: int = 0) -> Any:
    """For each canary the requests of the candidate when it was surely not worse by the margin."""
    when = []
    for counts in _batches(draw, canaries, looks, seed):
        sums = np.cumsum(safe_ratios(counts, rates(counts, np.zeros(counts.shape[1:])), (margin,))[:, :, 0], axis=0)
        when.append(_first(sums >= math.log(1 / ALPHA), counts))
    return np.concatenate(when)


# Figures


def false_rollbacks() -> None:
    for word, draw in (("0.1 % errors, weight 10 %", steady(0.001, 0.001, 0.1)), ("incidents in both, weight 1 to 50 %", troubled)):
        when, _, peeked = found(draw, PAIRS)
        _rate(f"equal pairs, {word}: false roll backs, 99 % lower bound", np.isfinite(when), ALPHA)
        share = float(np.isfinite(peeked).mean())
        say("... by the fixed-horizon test, peeked at", share * 100, unit="%", note=f"{LOOKS} looks at a level of {ALPHA:.0%}")


def _rate(figure: str, wrong: Any, at_most: float) -> None:
    hits, n = int(wrong.sum()), len(wrong)
    low, high = clopper_pearson(hits, n, 0.98)
    say(figure, low * 100, unit="%", at_most=at_most * 100, note=f"{hits} of {n:,} ({hits / n:.2%}; upper bound {high:.2%})")


def fixed_horizon(p0: float, p1: float, power: float = 0.9) -> int:
    """The requests after which the exact one-sided test against a known rate has that power, and keeps it."""
    n = np.arange(1, 5_000)
    needed = stats.binom.isf(ALPHA, n, p0) + 1
    enough = stats.binom.sf(needed - 1, n, p1) >= power
    return int(n[len(n) - int(np.argmin(enough[::-1]))]) if not enough.all() else 1


def turning(p_b: float, p_c: float, weight: float, after: int) -> Simulated:
    """Both alike for so many looks, and then not."""

    def draw(random: Any, looks: int, canaries: int) -> Any:
        good = steady(p_b, p_b, weight)(random, after, canaries)
        return np.concatenate([good, steady(p_b, p_c, weight)(random, looks - after, canaries)])

    return draw


def bursts(p: float, margin: float, weight: float, share: float) -> Simulated:
    """Worse by the margin on average, all of it in that share of the cells."""

    def draw(random: Any, looks: int, canaries: int) -> Any:
        n_c = random.binomial(CELL, weight, (looks, canaries))
        return _drawn(random, CELL - n_c, n_c, p, np.minimum(p + margin / share * (random.random(n_c.shape) < share), 1.0))

    return draw


def two_arms(p0: float, p1: float, weight: float, power: float = 0.9) -> int:
    """The same where the baseline is measured beside it: the normal approximation for two shares, in requests of the candidate."""
    ratio, middle = weight / (1 - weight), (1 - weight) * p0 + weight * p1
    z, y = stats.norm.isf(ALPHA), stats.norm.ppf(power)
    spread = z * math.sqrt(middle * (1 - middle) * (1 + ratio)) + y * math.sqrt(p1 * (1 - p1) + p0 * (1 - p0) * ratio)
    return math.ceil((spread / (p1 - p0)) ** 2)


def power(canaries: int = 2_000) -> None:
    known = fixed_horizon(0.001, 0.011)
    for weight, cell, looks in ((0.01, 400, 600), (0.1, CELL, 300), (0.5, 20, 400)):
        n = known if weight <= 0.1 else two_arms(0.001, 0.011, weight)
        when, among, _ = found(steady(0.001, 0.011, weight, cell), canaries, looks, 1)
        note = f"fixed horizon, 90 % power: {n} ({'baseline known' if n == known else 'baseline measured too'}); {canaries:,} canaries"
        word = f"errors 0.1 to 1.1 %, weight {weight:.0%}: requests of the candidate"
        say(f"{word}, median", _at(when, 0.5), at_most=n, note=note)
        say(f"{word}, 90 %", _at(when, 0.9), at_most=1.6 * n)
        say("... as one of four metrics: median", _at(among, 0.5), note="Holm")


def late(canaries: int = 200, after: int = 500) -> None:
    """A version that turns bad after 5,000 requests."""
    for word, p_b, p_c in (("errors 0.1 to 1.1 %", 0.001, 0.011), ("slow 5 to 10 %", 0.05, 0.1)):
        for when, begins in (("from the first request on", 0), ("after 5,000 good ones", after)):
            found_, _, _ = found(turning(p_b, p_c, 0.1, begins), canaries, begins + 300, 6)
            say(f"{word} {when}: requests until found, median", _at(found_, 0.5) - begins * CELL * 0.1, note="weight 10 %")


def _at(values: Any, share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))


MARGINS = (("errors 0.1 %, 0.5 points", 0.001, 0.005), ("latency 5 % slow, 2 points", 0.05, 0.02), ("a class of 50 %, 5 points", 0.5, 0.05))


def promotions() -> None:
    for word, p, margin in (
        ("errors 0.1 %, 0.5 points", 0.001, 0.005),
        ("latency 5 % slow, 2 points", 0.05, 0.02),
        ("a class of 50 %, 5 points", 0.5, 0.05),
    ):
        wrong = promoted(steady(p, p + margin, 0.1), margin, PAIRS, LOOKS, 2)
        _rate(f"{word}, worse by just that: false promotions, 99 % lower bound", np.isfinite(wrong), ALPHA)
        wrong = promoted(bursts(p, margin, 0.1, 0.1), margin, PAIRS // 5, LOOKS, 7)
        say("... when all of it comes in one cell of ten", float(np.isfinite(wrong).mean()) * 100, unit="%", note="not promised")
        right = promoted(steady(p, p, 0.1), margin, 500, 1_000, 3)
        say("... and equal: requests of the candidate until promoted, median", _at(right, 0.5), note="weight 10 %")
        say("... and equal: 90 %", _at(right, 0.9))


# Clients whose requests fail together


def clustered(canaries: int = 1_000, clients: int = 2_000) -> None:
    """A client stays with its version and asks five times on average; 1 % of the clients fail, in all they ask, over up to six cells."""
    wrong = {"by client": 0, "by request": 0}
    for seed in range(canaries):
        for word, rows in zip(wrong, _asking(np.random.default_rng((4, seed)), clients), strict=True):
            wrong[word] += _rolled_back(rows)
    _rate("equal pairs, five requests a client: false roll backs, 99 % lower bound", np.arange(canaries) < wrong["by client"], ALPHA)
    say("... requests counted as if independent", wrong["by request"] / canaries * 100, unit="%", note="what breaks it")


def _asking(random: Any, clients: int, failing: float = 0.01) -> tuple[Any, Any]:
    asks = random.geometric(0.2, clients)
    who = np.repeat(np.arange(clients), asks)
    at = np.repeat(random.random(clients) * clients / 2, asks) + random.random(len(who)) * 60
    candidate, broken = random.random(clients) < 0.3, random.random(clients) < failing
    columns = {"broken": broken[who]}
    return tuple(arranged(columns, at, candidate[who], names) for names in (who.tolist(), None))  # type: ignore[return-value] - a pair


def _rolled_back(rows: Any) -> bool:
    ends = np.searchsorted(rows.at, np.arange(10.0, float(rows.at[-1]) + 10, 10.0)).tolist()
    bounds = [(began, ended, datetime.now(UTC)) for began, ended in zip([0, *ends], ends, strict=False)]
    counts, _ = counted(rows, Hits(("errors",), np.ones(len(rows), bool), rows.columns["broken"][None]), bounds)
    return further(Evidence(1), counts, 0.005).best >= math.log(1 / ALPHA)


# Cost


def cost(looks: int = 200) -> None:
    random, one = np.random.default_rng(5), Evidence(20)
    began = time.process_time()
    for _ in range(looks):
        n_c = random.binomial(500, 0.1, (1, 20))
        one = further(one, _drawn(random, 500 - n_c, n_c, 0.1, 0.1), 0.05)
    spent = (time.process_time() - began) / looks * 1000
    say("evidence of a metric of 20 streams after one cell: CPU", spent, unit="ms", note=f"memory {len(one.harm) + len(one.safe):,} bytes")


PARTS: dict[str, Callable[[], None]] = {
    "false": false_rollbacks,
    "power": power,
    "late": late,
    "promotions": promotions,
    "clustered": clustered,
    "cost": cost,
}


if __name__ == "__main__":
    parts(PARTS, sys.argv[1:])
