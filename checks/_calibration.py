"""Whether probabilities come true: expected and largest calibration error with intervals, Brier's parts, and the reliability table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.stats import wilson
from checks._limits import Judged, Limit, judge
from checks._metrics import LEVEL, Estimate, Z
from checks._sample import Sample, UndefinedError, probabilities

Binning = Literal["mass", "width"]


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows whose probability lies in one stretch: what was said on average, and how often it came true (95 %, Wilson)."""

    low: float
    high: float
    n: int
    weight: float
    said: float
    came: float
    interval: tuple[float, float]

    @property
    def gap(self) -> float:
        return self.came - self.said


@dataclass(frozen=True, slots=True)
class Reliability:
    """The table and what it adds up to."""

    bins: tuple[Bin, ...]
    ece: Estimate
    mce: Estimate
    brier: Mapping[str, float]  # = reliability - resolution + uncertainty + within


@dataclass(frozen=True, slots=True)
class Scale:
    """How a stretch of scored rows is measured, and what its calibration error may be; judges slices as a Ruler does."""

    limit: float
    bins: int
    binning: Binning
    rows_at_least: int
    needs: str = ""

    def measure(self, rows: Sample) -> Reliability:
        return measure(*pairs(rows), self.bins, self.binning)

    def judge(self, name: str, rows: Sample, yard: Sample | None) -> Judged:
        return self.against(name, self.measure(rows))

    def against(self, name: str, found: Reliability) -> Judged:
        return judge(name, found.ece, [Limit(self.limit, below=False)])


def scored(sample: Sample) -> Sample:
    """The rows that have the probability that is judged."""
    import numpy as np

    return sample.pick(~np.isnan(_told(sample)))


def pairs(sample: Sample) -> tuple[Any, Any, Any]:
    """Probability, whether it came true, and weight: of the positive class, else of the predicted class."""
    import numpy as np

    came = sample.truth == (sample.positive if _binary(sample) else sample.answer)
    return probabilities(_told(sample)), came.astype(np.float64), sample.weight


def _binary(sample: Sample) -> bool:
    return sample.task == "binary" and sample.score is not None and sample.positive >= 0


def _told(sample: Sample) -> Any:
    told = sample.score if _binary(sample) else sample.hit
    if told is None:
        raise UndefinedError("needs a score: declare `score` of live, and say by `positive` which class it is the probability of, or set `score_of`")
    return told


def measure(said: Any, came: Any, weight: Any, bins: int = 15, binning: Binning = "mass") -> Reliability:
    """ECE is taken off what chance alone adds (Kumar, Liang and Ma 2019); its interval holds for the calibration error of these bins.

    With many rows the gaps are normal around the true ones; a weighted sum of their sizes is at most sqrt(2 / pi) of their spread too large on
    average, and stays as near its mean as a normal with that weight's spread (Gaussian concentration). Both are in the interval.
    """
    import numpy as np

    place, edges = _places(said, bins, binning)
    cells = [_bin(said[place == cell], came[place == cell], weight[place == cell], edges[cell : cell + 2]) for cell in range(len(edges) - 1)]
    found = tuple(cell for cell in cells if cell.n)
    shares = np.array([cell.weight for cell in found]) / sum(cell.weight for cell in found)
    spreads = np.array([_spread(cell) for cell in found])
    gaps = np.abs([cell.gap for cell in found])
    return Reliability(found, _expected(gaps, spreads, shares, len(said)), _largest(found), _brier(found, shares, said, came, weight))


def _places(said: Any, bins: int, binning: Binning) -> tuple[Any, Any]:
    """The bin of each row, and the edges; bins of equal mass never part equal scores, so there may be fewer."""
    import numpy as np

    if binning == "width":
        edges = np.linspace(0.0, 1.0, bins + 1)
    else:
        inner = np.unique(np.quantile(said, np.arange(1, bins) / bins, method="inverted_cdf"))
        edges = np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])
    return np.clip(np.searchsorted(edges, said, side="left") - 1, 0, len(edges) - 2), edges


def _bin(said: Any, came: Any, weight: Any, edges: Sequence[float]) -> Bin:
    total = float(weight.sum())
    if not total:
        return Bin(float(edges[0]), float(edges[1]), 0, 0.0, 0.0, 0.0, (0.0, 1.0))
    share = min(1.0, float(came @ weight) / total)
    of = max(1, round(total * total / float((weight**2).sum())))
    return Bin(float(edges[0]), float(edges[1]), len(said), total, float(said @ weight) / total, share, wilson(round(share * of), of))


def _spread(cell: Bin) -> float:
    """The standard error of how often it came true; of a bin that always or never did, that of Wilson's middle."""
    return (cell.interval[1] - cell.interval[0]) / (2 * Z)


def _expected(gaps: Any, spreads: Any, shares: Any, n: int) -> Estimate:
    """Sum of |gap| by mass, less what the noise of each bin adds to it on average: a folded normal's mean less its own."""
    import numpy as np
    from scipy.special import ndtr

    plain = float(shares @ gaps)
    ratio = np.divide(gaps, spreads, out=np.zeros_like(gaps), where=spreads > 0)
    folded = spreads * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + gaps * (1 - 2 * ndtr(-ratio))
    unbiased = max(0.0, plain - float(shares @ (folded - gaps)))
    most, reach = float(shares @ spreads) * math.sqrt(2 / math.pi), Z * math.sqrt(float((shares * spreads) @ (shares * spreads)))
    low, high = max(0.0, plain - most - reach), min(1.0, plain + reach)
    return Estimate(min(max(unbiased, low), high), low, high, n, "less its noise")


def _largest(found: tuple[Bin, ...]) -> Estimate:
    """The largest |gap|, with an interval that holds for all bins at once (Bonferroni)."""
    level = 1 - (1 - LEVEL) / len(found)
    ends = []
    for cell in found:
        of = max(1, round(_effective(cell)))
        low, high = wilson(round(cell.came * of), of, level)
        ends.append((max(0.0, low - cell.said, cell.said - high), max(high - cell.said, cell.said - low), abs(cell.gap), cell.n))
    value, n = max((gap, n) for _, _, gap, n in ends)
    return Estimate(value, max(low for low, *_ in ends), min(1.0, max(high for _, high, *_ in ends)), n, "Wilson, all bins at once")


def _effective(cell: Bin) -> float:
    """How many rows its interval was made for."""
    spread = _spread(cell)
    return min(float(cell.n), max(1.0, cell.came * (1 - cell.came) / spread**2)) if spread > 0 and 0 < cell.came < 1 else float(cell.n)


def _brier(found: tuple[Bin, ...], shares: Any, said: Any, came: Any, weight: Any) -> dict[str, float]:
    """Murphy's parts (1973), with what lies inside the bins (Stephenson, Coelho and Jolliffe 2008), so that they add up."""
    import numpy as np

    total = float(weight.sum())
    score, base = float(np.square(said - came) @ weight) / total, float(came @ weight) / total
    cames, saids = np.array([cell.came for cell in found]), np.array([cell.said for cell in found])
    parts = {
        "reliability": float(shares @ np.square(saids - cames)),
        "resolution": float(shares @ np.square(cames - base)),
        "uncertainty": base * (1 - base),
    }
    within = score - (parts["reliability"] - parts["resolution"] + parts["uncertainty"])
    return {"brier": score, **parts, "within": within}
