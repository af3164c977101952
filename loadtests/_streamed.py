"""Streams of tokens in numbers: how soon each began, how it flowed, when it ended, and what share met every limit at once.

The measures are those of vLLM's `bench serve`. TTFT: from when the request was due to its first token. TPOT: (end to end - TTFT) / (n - 1) of n
tokens, 0 of a single one. ITL: a gap between two pieces of an answer. Goodput: the share of requests that meet all limits at once (Zhong et al.,
"DistServe", OSDI 2024). n is what the server's usage says, for several tokens may come in one piece; where it says nothing, the pieces are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loadtests._spec import Trace
from loadtests._verdict import Judged, judge

Measure = Literal["ttft", "itl", "tpot", "e2e"]
MEASURES: tuple[Measure, ...] = ("ttft", "itl", "tpot", "e2e")


@dataclass(frozen=True)
class Measured:
    """An array element a request. Seconds are infinite where no whole answer came."""

    ttft: Any
    itl: Any  # the longest gap of the answer; 0 of a single piece
    tpot: Any
    e2e: Any
    n: Any  # tokens, by the server's count where it gives one
    several: Any  # whether there was a gap to measure: more than one token, or no whole answer


def measured(trace: Trace) -> Measured:
    """What each request of a run of streams measured."""
    import numpy as np

    pieces, first = np.asarray(trace.tokens, dtype=np.int64), np.asarray(trace.first, dtype=float)
    usage = np.zeros_like(pieces) if trace.usage is None else np.asarray(trace.usage, dtype=np.int64)
    n, good = np.where(usage > 0, usage, pieces), np.asarray(trace.good) & (pieces > 0)
    whole = np.where(good, trace.latency, np.inf)
    tpot = np.where(n > 1, (np.where(good, whole, 0.0) - np.where(good, first, 0.0)) / np.maximum(n - 1, 1), 0.0)
    some = {"ttft": first, "itl": _longest(pieces, trace.gaps), "tpot": tpot, "e2e": whole}
    return Measured(**{name: np.where(good, values, np.inf) for name, values in some.items()}, n=n, several=(n > 1) | ~good)


def _longest(pieces: Any, gaps: Any) -> Any:
    """The longest gap of each request, from all of them in a row."""
    import numpy as np

    counts, gaps = np.maximum(pieces - 1, 0), np.asarray(gaps, dtype=float)
    longest, begins = np.zeros(len(pieces)), np.cumsum(counts) - counts
    if len(gaps):
        longest[counts > 0] = np.maximum.reduceat(gaps, begins[counts > 0])
    return longest


def goodput(trace: Trace, limits: Mapping[Measure, float], *, share: float, burst: float, confidence: float) -> Judged:
    """Whether at least `share` of the requests met all limits (seconds by measure) at once: the verdict of _verdict.py on those that did not."""
    import numpy as np

    seen = measured(trace)
    met = np.logical_and.reduce([getattr(seen, name) <= limit for name, limit in limits.items()])
    return judge(trace.intended, np.where(met, 0.0, np.inf), limit=1.0, quantile=share, burst=burst, confidence=confidence)


def apart(trace: Trace, limits: Mapping[Measure, float], *, share: float, burst: float, confidence: float) -> Mapping[Measure, Judged]:
    """Each measure by itself, at the quantile `share`; one without a limit is held to none. TPOT and ITL are of answers of more than one token."""
    seen = measured(trace)
    found = {}
    for name in MEASURES:
        kept = seen.several if name in ("itl", "tpot") else slice(None)
        how = {"limit": limits.get(name, math.inf), "quantile": share, "burst": burst, "confidence": confidence}
        found[name] = judge(trace.intended[kept], getattr(seen, name)[kept], **how)
    return found


def per_second(trace: Trace) -> float:
    """Output tokens a second that came in whole answers."""
    return float(measured(trace).n[trace.good].sum()) / trace.wall if trace.wall > 0 else 0.0


def counts(trace: Trace) -> str:
    """How the server's count of tokens compares with the pieces that came; empty where all of it is the same."""
    good = trace.good
    pieces, usage = (int(values[good].sum()) if values is not None else 0 for values in (trace.tokens, trace.usage))
    silent = int((trace.usage[good] == 0).sum()) if trace.usage is not None else int(good.sum())
    if silent and good.any():
        return f"{silent:,} of {int(good.sum()):,} answers came without usage: their pieces count as tokens"
    return f"the server counts {usage:,} tokens, which came in {pieces:,} pieces; ITL is between pieces" if usage != pieces else ""
