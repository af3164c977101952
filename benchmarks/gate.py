"""The promotion gate on simulated candidates: how often it blocks equals, promotes them, and lets a forgetful one through."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from agent.stats import clopper_pearson
from checks._gate import Case, Slice, gate
from checks._paired import Flips

SLICES = 20
RUNS = 1_000
ACCURACY = 0.85
# what the candidate is, rows a slice, churn, loss on one slice, the outcome that counts, and its share at least and at most
CASES = (
    ("equal, 300 rows, churn 5 %", 300, 0.05, 0.0, "block", 0.0, 0.05),
    ("equal, 1,000 rows, churn 5 %", 1_000, 0.05, 0.0, "block", 0.0, 0.05),
    ("equal, 1,000 rows, churn 20 %", 1_000, 0.20, 0.0, "block", 0.0, 0.05),
    ("equal, 2,500 rows, churn 5 %", 2_500, 0.05, 0.0, "promote", 0.90, 1.0),
    ("one slice loses 3 points, 1,000 rows, churn 5 %", 1_000, 0.05, 0.03, "block", 0.90, 1.0),
    ("one slice loses 3 points, 2,000 rows, churn 10 %", 2_000, 0.10, 0.03, "block", 0.90, 1.0),
    ("one slice loses 3 points, 4,000 rows, churn 20 %", 4_000, 0.20, 0.03, "block", 0.90, 1.0),
    ("one slice loses 3 points, 200 rows, churn 5 %", 200, 0.05, 0.03, "promote", 0.0, 0.05),
)


def slices(rng: Any, n: int, churn: float, drop: float = 0.0) -> list[Case]:
    """A candidate on twenty slices of n rows, of which `churn` change between right and wrong; on the first it loses `drop`."""
    return [Case(Slice(str(place), "guard"), "champion", _slice(rng, n, churn, 0.0 if place else drop)) for place in range(SLICES)]


def _slice(rng: Any, n: int, churn: float, drop: float) -> Flips:
    lost, won = (churn + drop) / 2, (churn - drop) / 2
    return Flips(*map(int, rng.multinomial(n, [ACCURACY - lost, lost, won, 1 - ACCURACY - won])))


def rates(rng: Any, n: int, churn: float, drop: float = 0.0) -> dict[str, int]:
    """How many of the runs came to each outcome."""
    found = [gate(slices(rng, n, churn, drop)).outcome for _ in range(RUNS)]
    return {word: found.count(word) for word in ("promote", "inconclusive", "block")}


def naive(rng: Any, n: int, churn: float, drop: float = 0.0) -> int:
    """How many of the runs a gate of point estimates blocks: no slice may lose a point."""
    return sum(any(case.pair.change < -0.01 for case in slices(rng, n, churn, drop)) for _ in range(RUNS))


def say(name: str, value: float, **more: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), **more}), flush=True)


def main() -> int:
    import numpy as np

    rng, bad = np.random.default_rng(20260301), 0
    for said, n, churn, drop, outcome, least, most in CASES:
        found = rates(rng, n, churn, drop)
        low, high = clopper_pearson(found[outcome], RUNS, 0.99)
        shares = {word: count / RUNS for word, count in found.items()}
        promise = {"at_least": least} if least else {"at_most": most}
        more = {"interval": [round(low, 4), round(high, 4)], "all": shares, "naive_blocks": naive(rng, n, churn, drop) / RUNS}
        say(f"{outcome}: {said}", shares[outcome], **promise, **more)
        bad += not least <= shares[outcome] <= most
    cases = slices(rng, 5_000, 0.05)
    began = time.process_time()
    for _ in range(10):
        gate(cases)
    each = (time.process_time() - began) / 10
    say("statistics of 20 slices of 5,000 rows, CPU", each, unit="s", at_most=0.1)
    return 1 if bad or each > 0.1 else 0


if __name__ == "__main__":
    sys.exit(main())
