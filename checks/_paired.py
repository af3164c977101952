"""Two models on the same rows: what one lost, what it won, how sure that is, and how many rows would make it surer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

MOST = 2.0**20  # times the rows there are: beyond, nobody labels them


class Compared(Protocol):
    """What the gate asks of a comparison, whatever a row's answer is worth: `change` is better when it is larger."""

    @property
    def n(self) -> float: ...
    @property
    def change(self) -> float: ...
    def interval(self, level: float) -> tuple[float, float]: ...
    def worse(self) -> float: ...
    def within(self, margin: float) -> float: ...
    def times(self, factor: float) -> Compared: ...


@dataclass(frozen=True, slots=True)
class Flips:
    """Rows of one slice by who was right: both, the first only (`lost`), the second only (`won`), neither. `moved`: rows answered differently."""

    both: float
    lost: float
    won: float
    neither: float
    moved: float = 0

    @property
    def n(self) -> float:
        return self.both + self.lost + self.won + self.neither

    @property
    def before(self) -> float:
        """Accuracy of the first model."""
        return (self.both + self.lost) / self.n

    @property
    def after(self) -> float:
        """Accuracy of the second model."""
        return (self.both + self.won) / self.n

    @property
    def change(self) -> float:
        """Accuracy of the second less that of the first."""
        return (self.won - self.lost) / self.n

    @property
    def nfr(self) -> float:
        """Negative flip rate: right before, wrong after, of all rows (Yan et al. 2021, positive-congruent training)."""
        return self.lost / self.n

    @property
    def pfr(self) -> float:
        """Positive flip rate: wrong before, right after, of all rows."""
        return self.won / self.n

    @property
    def churn(self) -> float:
        """Rows answered differently, right or wrong, of all rows (Milani Fard et al. 2016)."""
        return self.moved / self.n

    @property
    def btc(self) -> float | None:
        """Backward trust compatibility: of the rows the first had right, those the second has right (Bansal et al. 2019); None of none."""
        right = self.both + self.lost
        return self.both / right if right else None

    @property
    def bec(self) -> float | None:
        """Backward error compatibility: of the rows the second has wrong, those the first had wrong too (the same); None of none."""
        wrong = self.lost + self.neither
        return self.neither / wrong if wrong else None

    def interval(self, level: float) -> tuple[float, float]:
        """For the change: the differences that Tango's score test does not reject (1998); holds its level at small n, where Wald's does not."""
        return _end(self, -1.0, self.change, level), _end(self, 1.0, self.change, level)

    def worse(self) -> float:
        """The chance of so many losses among the rows that flipped, were a flip as likely to win as to lose: McNemar's exact test, one-sided."""
        from scipy.special import betainc

        flips = self.lost + self.won
        return float(betainc(self.lost, flips - self.lost + 1, 0.5)) if self.lost else 1.0

    def within(self, margin: float) -> float:
        """The chance of so good a change, were the true one a loss of exactly `margin`: Tango's score test of non-inferiority, one-sided."""
        return _tail(_score(self, -margin))

    def times(self, factor: float) -> Flips:
        """As many rows of each sort, `factor` times: parts of rows are for reckoning only."""
        return Flips(*(factor * count for count in (self.both, self.lost, self.won, self.neither, self.moved)))


@dataclass(frozen=True, slots=True)
class Losses:
    """The difference of two models' losses over the rows of one slice: how many, its mean (second less first) and its standard deviation."""

    n: float
    mean: float
    sd: float

    @property
    def change(self) -> float:
        """How much smaller the second model's loss is."""
        return -self.mean

    def interval(self, level: float) -> tuple[float, float]:
        """For the change, by Student's t over the rows' differences; no bound from fewer than two rows."""
        from scipy.special import stdtrit

        if self.n < 2:
            return -math.inf, math.inf
        reach = float(stdtrit(self.n - 1, (1 + level) / 2)) * self.sd / math.sqrt(self.n)
        return self.change - reach, self.change + reach

    def worse(self) -> float:
        """One-sided p-value of the loss being larger than before."""
        return self._p(-self.mean)

    def within(self, margin: float) -> float:
        """One-sided p-value against a loss that grew by `margin`."""
        return self._p(self.mean - margin)

    def times(self, factor: float) -> Losses:
        return Losses(self.n * factor, self.mean, self.sd)

    def _p(self, distance: float) -> float:
        from scipy.special import stdtr

        if self.n < 2:
            return 1.0
        if self.sd == 0:
            return 0.0 if distance < 0 else 1.0
        return float(stdtr(self.n - 1, distance * math.sqrt(self.n) / self.sd))


def flips(truth: Any, before: Any, after: Any) -> Flips:
    """Count the rows; the three are arrays of one length, one row each."""
    first, second = before == truth, after == truth
    both, right, now = int((first & second).sum()), int(first.sum()), int(second.sum())
    return Flips(both, right - both, now - both, len(truth) - right - now + both, int((before != after).sum()))


def losses(before: Any, after: Any) -> Losses:
    """From the losses of the rows, as arrays of one length."""
    gap = after - before
    return Losses(len(gap), float(gap.mean()), float(gap.std(ddof=1)) if len(gap) > 1 else 0.0)


def rows_needed(pair: Compared, margin: float, alpha: float = 0.05) -> int | None:
    """How many more rows would show that the change is within `margin`, were they like those seen; None where none would: the loss is no smaller."""
    if pair.change + margin <= 0:
        return None
    low, high = 1.0, 2.0
    while pair.times(high).within(margin) > alpha:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while (high - low) * pair.n > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if pair.times(middle).within(margin) <= alpha else (middle, high)
    return max(math.ceil((high - 1) * pair.n), 1)


def _score(pair: Flips, change: float) -> float:
    """Tango's score of the counts, were `change` the true one: how many standard errors above it they lie."""
    n, x, y = pair.n, pair.won, pair.lost
    w = (2 * n - x + y) * change - x - y
    lost = (math.sqrt(max(w * w + 8 * n * y * change * (1 - change), 0.0)) - w) / (4 * n)  # its share, most likely under that change
    error = math.sqrt(max(n * (2 * lost + change * (1 - change)), 0.0))
    gap = x - y - n * change
    return gap / error if error > 0 else math.copysign(math.inf, gap) if gap else 0.0


def _end(pair: Flips, far: float, near: float, level: float) -> float:
    """The change between `near` and `far` whose score is just not rejected: halved until a double cannot tell."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + level) / 2)
    if abs(_score(pair, far)) <= z:
        return far
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if abs(_score(pair, middle)) <= z else (near, middle)
    return near


def _tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2
