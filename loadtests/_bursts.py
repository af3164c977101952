"""How much the requests over a limit say when they come in bursts: a bound of their share for the bursts that were met, and one for the others.

Requests that fail together count as fewer than they are. The design effect D is the variance of what windows hold over its binomial value, and n
requests count as n / D in the exact interval of Clopper and Pearson (Kish, Survey Sampling, 1965). Where few windows are bad D cannot be seen, and
is at least what a burst holds.

That is not enough where bursts are rare and something else is frequent: D is then the frequent one's, and a run that met no burst looks sure. So
the upper bound is also that of a bet on cells, each as long as a burst and between 0 and 1 in its share x: a share q is refuted when some stake t
makes the product of 1 + t (q - x) large (empirical likelihood: Owen, 1988; as a bet: Waudby-Smith and Ramdas, JRSS B 2024). How large is taken from
the exact bound of a count, by the whole bursts that were met. Where none was, that is the bound of Clopper and Pearson with a burst counted as one
request, and a PASS of p99 at 95 % takes the time of 299 bursts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FEW = 5  # bad windows, below which their variance says too little
WINDOW = 10  # bursts: long enough that few lie in two windows


@dataclass(frozen=True, slots=True)
class Run:
    """`n` requests in the order of time, the places (rising, from 0) of those over the limit, and how many a burst holds."""

    n: int
    late: Any
    burst: float

    @property
    def share(self) -> float:
        return len(self.late) / self.n


@dataclass(frozen=True, slots=True)
class Taken:
    """The latencies of a run in the order in which the requests were due, its seconds, and how many requests a burst holds."""

    latency: Any
    seconds: float
    burst: float

    def over(self, limit: float) -> Run:
        """What is over a limit: a latency at it is not, one that is infinite always is."""
        import numpy as np

        return Run(len(self.latency), np.flatnonzero(~((self.latency <= limit) & (self.latency < np.inf))), self.burst)


def taken(intended: Any, latency: Any, burst: float) -> Taken:
    """Of at least one request. The run ends a mean gap after its last is due."""
    import numpy as np

    order = np.argsort(intended, kind="stable")
    intended, n = intended[order], len(order)
    seconds = float(intended[-1] - intended[0]) * n / max(n - 1, 1)
    return Taken(latency[order], seconds, held(intended, seconds, burst))


def held(intended: Any, seconds: float, burst: float) -> float:
    """How many of the requests, in order, a burst of so many seconds holds, on average over them: on a ramp more than the mean rate says.

    What is uneven by chance alone, as it is when arrivals are random, makes no difference.
    """
    import numpy as np

    n = len(intended)
    if not seconds:
        return float(n)
    windows = int(np.clip(seconds / burst / WINDOW, 1, 1000))
    here = np.bincount(np.minimum((intended - intended[0]) * (windows / seconds), windows - 1).astype(np.int64), minlength=windows).astype(float)
    uneven = float((here * (here - 1)).sum()) * windows / n**2 - 2 * np.sqrt(2 * windows) / n
    return float(min(max(n / seconds * burst * max(uneven, 1.0), 1.0), n))


def design(run: Run) -> float:
    """How many requests count as one: at least 1, at most all of them, and not below what a burst holds while few windows are bad."""
    import numpy as np

    share, windows = run.share, max(1, int(run.n / run.burst / WINDOW))
    over = np.bincount(run.late * windows // run.n, minlength=windows)
    spread = float(((over - share * run.n / windows) ** 2).sum()) * windows / max(windows - 1, 1)
    seemed = spread / (run.n * share * (1 - share)) if 0 < share < 1 else 1.0
    least = run.burst if (over > 0).sum() < FEW else 1.0
    return min(max(seemed, least, 1.0), float(run.n))


def exact(over: Any, n: float, risk: float) -> tuple[Any, Any]:
    """Clopper and Pearson's lower and upper bound of a share, each wrong with at most `risk`; counts need not be whole, and may be many at once."""
    import numpy as np
    from scipy.special import betaincinv

    low = np.where(over <= 0, 0.0, betaincinv(np.maximum(over, 1e-12), np.maximum(n - over + 1, 1e-12), risk))
    return low, np.where(over >= n, 1.0, betaincinv(over + 1, np.maximum(n - over, 1e-12), 1 - risk))


def cells(run: Run) -> tuple[Any, Any]:
    """Shares over the limit in cells as long as a burst, and how many cells have each. A cell begins where one is late, so none cuts a burst."""
    import numpy as np

    late, held, place = run.late.tolist(), [], 0
    while place < len(late):
        end = bisect_left(late, late[place] + run.burst, place)
        held.append(min((end - place) / run.burst, 1.0))
        place = end
    x, count = np.unique(held, return_counts=True)
    return np.append(x, 0.0), np.append(count, max(int(run.n / run.burst + 1e-9) - len(held), 0)).astype(float)


def refuted(x: Any, count: Any, share: float, risk: float) -> bool:
    """Whether bursts up to a cell long, met or not, cannot hide a share so large."""
    import numpy as np
    from scipy.special import gammaincinv

    gain = share - x
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


def passes(run: Run, one: float, allowed: float, risk: float, times: float = 1.0) -> bool:
    """Whether the share of all requests is at most what is allowed, wrong with at most `risk`; `one` is the design effect.

    Of a run `times` as long and otherwise like this.
    """
    if exact(len(run.late) / one * times, run.n / one * times, risk)[1] > allowed:
        return False
    x, count = cells(run)
    return refuted(x, count * times, allowed, risk)


def bounds(run: Run, one: float, risk: float) -> tuple[float, float]:
    """The lower and the upper bound of the share of all requests, each wrong with at most `risk`."""
    low, high = map(float, exact(len(run.late) / one, run.n / one, risk))
    x, count = cells(run)
    return low, high if refuted(x, count, high, risk) else bisected(lambda share: refuted(x, count, share, risk), high, 1.0)


def bisected(holds: Callable[[float], bool], near: float, far: float) -> float:
    """The least value for which `holds`, known not to hold at `near` and to hold at `far`."""
    for _ in range(30):
        middle = (near + far) / 2
        near, far = (near, middle) if holds(middle) else (middle, far)
    return far
