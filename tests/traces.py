"""Runs that were never run: a Trace made from latencies, for what is arithmetic."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from agent import UTC
from loadtests._spec import Trace

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def trace(latency, intended=None, rate=100.0, **more):
    """One request each 1/rate s, or at `intended`, answered after `latency` seconds; an infinite one had a 503 after 1 ms."""
    latency = np.asarray(latency, float)
    intended = np.arange(len(latency)) / rate if intended is None else np.asarray(intended, float)
    bad = ~np.isfinite(latency)
    done = intended + np.where(bad, 0.001, latency)
    kind, status = bad.astype(np.uint8), np.where(bad, 503, 200).astype(np.uint16)
    wall = float(done.max()) if len(done) else 0.0
    return Trace(
        **{"intended": intended, "dispatched": intended, "sent": intended, "done": done, "kind": kind, "status": status}
        | {"began_at": BEGAN, "wall": wall, "cpu": 0.1}
        | more
    )
