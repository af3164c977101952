"""A run cut into windows of equal length: what baselines and slopes are made of, since requests of one stall are not independent of each other."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from agent.errors import DataError
from loadtests._spec import Trace

COLUMNS = ("start", "seconds", "n", "sent", "errors", "over", "p50", "p95", "p99")
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MOST_ALIKE = 0.95
SLACK = 1e-9  # 0.99 * 100 is a little above 99


@dataclass(frozen=True)
class Windows:
    """A row for each window, as arrays. Latencies are in seconds, infinite where the request at that place had no good answer, NaN in a window
    that had no request; `over` counts requests above the limit, those without a good answer among them."""

    start: Any  # seconds since the run's start
    seconds: Any  # how long each is
    n: Any  # requests meant to be sent in it
    sent: Any  # ... that were
    errors: Any  # ... that had no good answer
    over: Any
    p50: Any
    p95: Any
    p99: Any

    def __len__(self) -> int:
        return len(self.start)

    @property
    def rate(self) -> float:
        """Requests a second that were meant to be sent."""
        return float(self.n.sum() / self.seconds.sum())


def windows(trace: Trace, width: float, limit: float = float("inf")) -> Windows:
    """The trace in windows of `width` seconds of intended time. Nothing is left out: what is left of the last window, up to half of one, joins it.

    A quantile is one of the latencies, never interpolated: the smallest that at least that share of the window's requests do not exceed.
    """
    import numpy as np

    if not len(trace.intended):
        raise DataError("the run sent no request, so it has no windows")
    end = float(trace.intended.max())
    many = max(1, round(end / width))
    place, latency = np.minimum((trace.intended // width).astype(int), many - 1), trace.latency
    rising = latency[np.lexsort((latency, place))]
    n = np.bincount(place, minlength=many)
    first = np.cumsum(n) - n

    def count(which: Any) -> Any:
        return np.bincount(place[which], minlength=many)

    def quantile(share: float) -> Any:
        at = first + np.maximum(np.ceil(share * n - SLACK).astype(int) - 1, 0)
        return np.where(n > 0, rising[np.minimum(at, len(rising) - 1)], np.nan)

    start = width * np.arange(many)
    seconds = np.append(np.full(many - 1, width), max(width, end - start[-1]))
    sent, errors, over = count(~np.isnan(trace.sent)), count(~trace.good), count(latency > limit)
    return Windows(start, seconds, n, sent, errors, over, *map(quantile, QUANTILES.values()))


def since(trace: Trace, seconds: float) -> Trace:
    """The trace without its first seconds of intended time, its clocks begun anew: what is judged once the warm-up is over."""
    import numpy as np

    kept = trace.intended >= seconds
    clocks = {name: getattr(trace, name)[kept] - seconds for name in ("intended", "dispatched", "sent", "done")}
    rest = {name: getattr(trace, name)[kept] for name in ("kind", "status", "first", "tokens", "usage") if getattr(trace, name) is not None}
    if trace.gaps is not None:
        rest["gaps"] = trace.gaps[np.repeat(kept, np.maximum(trace.tokens.astype(int) - 1, 0))]
    return replace(trace, began_at=trace.began_at + timedelta(seconds=seconds), wall=max(0.0, trace.wall - seconds), **clocks, **rest)


def alike(*series: Any) -> float:
    """How many windows count as one, at least 1, since neighbours are alike: (1 + r) / (1 - r), with r the correlation of neighbours' ranks.

    It is taken around each series' own middle and put right for its bias in short ones (Kendall, "Note on bias in the estimation of
    autocorrelation", Biometrika 41, 1954). The variance of a rank sum grows by so much (Yue and Wang, Advances in Water Resources 25, 2002).
    """
    import numpy as np
    from scipy.stats import rankdata

    ranks = [rankdata(one) - (len(one) + 1) / 2 for one in series]
    spread, n = sum(float(one @ one) for one in ranks), sum(map(len, ranks))
    if not spread:
        return 1.0
    r = sum(float(one[1:] @ one[:-1]) for one in ranks) / spread
    r = min(MOST_ALIKE, max(0.0, r + (len(ranks) + 3 * r) / n))
    return float(np.clip((1 + r) / (1 - r), 1.0, n / 2))


# As a file


def to_csv(table: Windows, **more: Any) -> bytes:
    """One line a window, every number to its last digit; a number that is not there is empty, one that has no end is `inf`. `more` are columns."""
    columns = {name: getattr(table, name) for name in COLUMNS} | more
    told = io.StringIO()
    write = csv.writer(told, lineterminator="\n")
    write.writerow(columns)
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        write.writerow(["" if value != value else value for value in row])
    return told.getvalue().encode()


def from_csv(body: bytes) -> Windows:
    """The windows again; DataError says what is wrong with the file, and where."""
    import numpy as np

    try:
        rows = list(csv.reader(io.StringIO(body.decode())))
    except (UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"windows.csv is no CSV text: {problem}; pin a finding that a load test left") from problem
    if not rows or tuple(rows[0]) != COLUMNS or len(rows) < 2:
        raise DataError(f"windows.csv should begin with {','.join(COLUMNS)} and have a line for each window; pin a finding that a load test left")
    columns = []
    for number, row in enumerate(rows[1:], 2):
        try:
            columns.append([float(value or "nan") for _, value in zip(COLUMNS, row, strict=True)])
        except ValueError as problem:
            raise DataError(f"windows.csv, line {number}: {problem}; pin a finding that a load test left") from problem
    made = dict(zip(COLUMNS, np.array(columns).T, strict=True))
    return Windows(**{field.name: made[field.name] for field in fields(Windows)})
