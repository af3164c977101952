"""How much the requests over the limit say when they come in bursts: windows counted, the design effect, and bounds of the share made with it.

Requests that fail together count as fewer than they are. The design effect D is the variance of what windows hold over its binomial value, and n
requests count as n / D in the exact interval of Clopper and Pearson (Kish, Survey Sampling, 1965; the variance is that of a ratio, so windows need
not hold equally many). Where too few windows hold any, D cannot be seen, and is at least what a burst of the length allowed for holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FEW = 5  # windows with a request over the limit, below which their variance says too little
LONG = 10.0  # a window, in bursts
MOST = 20_000  # windows


@dataclass(frozen=True, slots=True)
class Windows:
    """Requests and those over the limit, a window each (last axis), and the seconds of the whole run; windows are equally long."""

    n: Any
    over: Any
    seconds: Any


def counted(intended: Any, over: Any, burst: float) -> Windows:
    """Counts in windows of about ten bursts. The run ends a mean gap after its last request is due."""
    import numpy as np

    if not len(intended):
        return Windows(np.zeros(1), np.zeros(1), 0.0)
    first = intended.min()
    span = float(intended.max() - first) * len(intended) / max(len(intended) - 1, 1)
    windows = int(np.clip(span / (LONG * burst), 1, MOST))
    place = np.minimum((intended - first) * (windows / span), windows - 1).astype(np.int64) if span else np.zeros(len(intended), np.int64)
    n, bad = (np.bincount(place, weights, windows).astype(float) for weights in (None, over))
    return Windows(n, bad, span)


def design(seen: Windows, burst: float) -> Any:
    """How many requests count as one: at least 1, at most all of them, and not below what a burst holds while few windows are bad."""
    import numpy as np

    windows = seen.n.shape[-1]
    n, over = seen.n.sum(-1), seen.over.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = over / n
        left = seen.over - share[..., None] * seen.n
        binomial = n * share * (1 - share)
        ratio = np.where(binomial > 0, (left**2).sum(-1) * windows / max(windows - 1, 1) / binomial, 1.0)
    few = (seen.over > 0).sum(-1) < FEW
    return np.clip(np.where(few, np.maximum(ratio, held(seen, burst)), ratio), 1.0, np.maximum(n, 1.0))


def held(seen: Windows, burst: float) -> Any:
    """How many requests a burst of that many seconds holds, met where an average request is: on a ramp more than the mean rate says."""
    import numpy as np

    windows, n = seen.n.shape[-1], seen.n.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        uneven = np.where(n > 0, (seen.n * (seen.n - 1)).sum(-1) * windows / n**2, 1.0)
        return np.where(seen.seconds > 0, n * burst / seen.seconds * np.maximum(uneven - 2 * np.sqrt(2 / windows) * windows / n, 1.0), n)


def bounds(over: Any, n: Any, risk: float) -> tuple[Any, Any]:
    """Clopper and Pearson's lower and upper bound of a share, each wrong with at most `risk`; counts need not be whole."""
    import numpy as np
    from scipy.special import betaincinv

    over, n = np.asarray(over, dtype=float), np.asarray(n, dtype=float)
    with np.errstate(invalid="ignore"):
        low = np.where(over <= 0, 0.0, betaincinv(np.maximum(over, 1e-12), n - over + 1, risk))
        high = np.where(over >= n, 1.0, betaincinv(over + 1, np.maximum(n - over, 1e-12), 1 - risk))
    return low, high
