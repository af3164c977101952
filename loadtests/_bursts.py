"""How much the requests over a limit say when they come in bursts: a bound of their share for the bursts that were met, and one for those that were not.

Requests that fail together count as fewer than they are. The design effect D is the variance of what windows hold over its binomial value, and n
requests count as n / D in the exact interval of Clopper and Pearson (Kish, Survey Sampling, 1965). Where few windows are bad D cannot be seen, and
is at least what a burst holds.

That is not enough where bursts are rare and something else is frequent: D is then the frequent one's, and a run that met no burst looks sure. So
the upper bound is also that of a bet on the cells, each as long as a burst and between 0 and 1 in its share x: a share q is refuted when some
stake t makes the product of 1 + t (q - x) large (empirical likelihood: Owen, 1988; as a bet: Waudby-Smith and Ramdas, JRSS B 2024). How large is
taken from the exact interval of a count that had as many whole bursts as were seen, so one cell after another without a bad request
gives the bound of Clopper and Pearson, and a PASS of p99 takes 299 bursts' time at 95 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FEW = 5  # bad windows, below which their variance says too little
WINDOW = 10  # cells: long enough that few bursts lie in two windows


@dataclass(frozen=True, slots=True)
class Cells:
    """Requests over the limit in consecutive cells of `size` requests each, as many as a burst holds, and the seconds of the whole run."""

    over: Any
    size: float
    seconds: float

    @property
    def n(self) -> float:
        return self.size * len(self.over)

    @property
    def share(self) -> float:
        return float(self.over.sum()) / self.n


def ordered(intended: Any, burst: float) -> tuple[Any, Any, float]:
    """The order of requests in time, the cell of each in that order, and the seconds of the run, which ends a mean gap after its last request is due.

    Cells hold equally many requests, so that a ramp has the shorter ones where a burst does the more harm.
    """
    import numpy as np

    n = len(intended)
    order = np.argsort(intended, kind="stable")
    first, last = float(intended[order[0]]), float(intended[order[-1]])
    seconds = (last - first) * n / max(n - 1, 1)
    number = max(1, int(seconds / burst / _uneven(intended - first, seconds, burst) + 1e-9)) if seconds else 1
    return order, np.arange(n) * min(number, n) // n, seconds


def _uneven(since: Any, seconds: float, burst: float) -> float:
    """How many times the mean a burst holds where an average request is, as far as chance does not explain it; 1 for a steady rate."""
    import numpy as np

    n, windows = len(since), int(np.clip(seconds / burst / WINDOW, 1, 1000))
    held = np.bincount(np.minimum(since * (windows / seconds), windows - 1).astype(np.int64), minlength=windows).astype(float)
    return max(1.0, float((held * (held - 1)).sum() * windows / n**2 - 2 * np.sqrt(2 * windows) / n))


def counted(place: Any, over: Any, seconds: float) -> Cells:
    """The cells, from the place of each request and whether it was over the limit, in the order of time."""
    import numpy as np

    number = int(place[-1]) + 1
    return Cells(np.bincount(place, over, number), len(place) / number, seconds)


def design(seen: Cells) -> float:
    """How many requests count as one: at least 1, at most all of them, and not below what a burst holds while few windows are bad."""
    import numpy as np

    share, windows = seen.share, max(1, len(seen.over) // WINDOW)
    edges = np.arange(windows) * len(seen.over) // windows
    held = np.diff(edges, append=len(seen.over)) * seen.size
    over = np.add.reduceat(seen.over, edges)
    spread = float(((over - share * held) ** 2).sum()) * windows / max(windows - 1, 1)
    seemed = spread / (seen.n * share * (1 - share)) if 0 < share < 1 else 1.0
    least = max(seen.size, 1.0) if (over > 0).sum() < FEW else 1.0
    return min(max(seemed, least), max(seen.n, 1.0))


def exact(over: float, n: float, risk: float) -> tuple[float, float]:
    """Clopper and Pearson's lower and upper bound of a share, each wrong with at most `risk`; counts need not be whole."""
    from scipy.special import betaincinv

    low = 0.0 if over <= 0 else float(betaincinv(over, n - over + 1, risk))
    return low, 1.0 if over >= n else float(betaincinv(over + 1, n - over, 1 - risk))


def refuted(seen: Cells, share: float, risk: float, times: float = 1.0) -> bool:
    """Whether bursts up to a cell long, met or not, cannot hide a share so large; of a run `times` as long and otherwise like this."""
    import numpy as np
    from scipy.special import gammaincinv

    x, cells = np.unique(np.minimum(seen.over / seen.size, 1.0), return_counts=True)
    count, gain = cells * times, share - x
    if share >= 1 or (count * gain).sum() <= 0:
        return share >= 1
    low, high = 0.0, 1 / (1 - share)
    for _ in range(50):
        stake = (low + high) / 2
        low, high = (stake, high) if (count * gain / (1 + stake * gain)).sum() > 0 else (low, stake)
    met = float((count * x**2).sum())  # whole bursts
    most = float(gammaincinv(met + 1, 1 - risk))  # the largest mean of a count that would still give so few
    wanted = most - met - (met * np.log(most / met) if met > 0 else 0.0)
    return bool((count * np.log1p(low * gain)).sum() >= wanted - 1e-9)


def passes(seen: Cells, one: float, allowed: float, risk: float, times: float = 1.0) -> bool:
    """Whether the share of all requests is at most what is allowed, wrong with at most `risk`; `one` is the design effect."""
    _, high = exact(seen.over.sum() / one * times, seen.n / one * times, risk)
    return high <= allowed and refuted(seen, allowed, risk, times)


def bounds(seen: Cells, one: float, risk: float) -> tuple[float, float]:
    """The lower and the upper bound of the share of all requests, each wrong with at most `risk`."""
    low, high = exact(seen.over.sum() / one, seen.n / one, risk)
    return low, high if refuted(seen, high, risk) else bisected(lambda share: refuted(seen, share, risk), high, 1.0)


def bisected(holds: Callable[[float], bool], near: float, far: float) -> float:
    """The least value for which `holds`, known not to hold at `near` and to hold at `far`."""
    for _ in range(30):
        middle = (near + far) / 2
        near, far = (near, middle) if holds(middle) else (middle, far)
    return far
