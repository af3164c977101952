"""May a run end early? Evidence that may be looked at after every window, and how many requests a verdict takes when none is looked at in between.

The evidence is a bet for and a bet against "the share over the limit is what is allowed": a mixture of stakes on one window after another, each
window as long as a burst (Waudby-Smith and Ramdas, JRSS B 2024). Of whole windows it is the mixture of likelihood ratios. If the share is what is
allowed, such a capital reaches 1 / risk at any time at all with at most `risk` (Ville, 1939). A burst may lie in two windows that are neighbours,
so the odd ones and the even ones are bet on apart; and since stalls that come every minute may all lie in the even ones, both must reach it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

UNDER = ((1.0, 0.5), (0.5, 0.3), (0.25, 0.2))  # stakes, as a part of the largest there is, and their weights: on a share that is smaller
OVER = tuple((0.5 / 2**step, 0.125) for step in range(8))  # on one that is larger


@dataclass
class Early:
    """Fold in one window after another, each as long as a burst, as they end; `most` is how many requests the fullest of the schedule holds.

    The answer is "fail" or "pass" as soon as the evidence suffices, however often it is asked, each wrong with at most 1 - confidence; else None.
    """

    most: int
    quantile: float = 0.99
    confidence: float = 0.95
    windows: int = 0
    _logs: dict[str, list[list[float]]] = field(init=False)

    def __post_init__(self) -> None:
        self._logs = {"pass": [[0.0] * len(UNDER) for _ in range(2)], "fail": [[0.0] * len(OVER) for _ in range(2)]}

    def fold(self, n: int, over: int) -> Literal["pass", "fail"] | None:
        """One more window: `over` of the `n` requests due in it were over the limit. ValueError for counts that cannot be."""
        if not 0 <= over <= n <= self.most:
            raise ValueError(f"{over} over the limit of {n} requests, of at most {self.most} in a window")
        allowed, turn = 1 - self.quantile, self.windows % 2
        short = (allowed * n - over) / self.most
        for logs, stakes, gain in ((self._logs["pass"], UNDER, short / (1 - allowed)), (self._logs["fail"], OVER, -short / allowed)):
            for place, (stake, _) in enumerate(stakes):
                logs[turn][place] += math.log1p(stake * gain) if stake * gain > -1 else -math.inf
        self.windows += 1
        return self.said

    @property
    def said(self) -> Literal["pass", "fail"] | None:
        """What the evidence so far suffices for."""
        for word, stakes in (("fail", OVER), ("pass", UNDER)):
            if self._capital(word, stakes) >= 1 / (1 - self.confidence):
                return "fail" if word == "fail" else "pass"
        return None

    def _capital(self, word: str, stakes: tuple[tuple[float, float], ...]) -> float:
        return min(sum(weight * math.exp(min(log, 700.0)) for log, (_, weight) in zip(logs, stakes, strict=True)) for logs in self._logs[word])


def needed(over: int, quantile: float = 0.99, confidence: float = 0.95) -> int:
    """The fewest independent requests of which `over` may be over the limit for a PASS: MLPerf's early stopping, with its tolerance 0.

    They are enough when so few over the limit have at most 1 - confidence to come where the quantile is just at it.
    """
    if over < 0 or not 0 < quantile < 1 or not 0 < confidence < 1:
        raise ValueError(f"no number of requests for {over} over the limit of the {quantile} quantile at {confidence}")
    near, far = over, max(1, over)
    while not _enough(over, far, quantile, confidence):
        near, far = far, far * 2
    while far - near > 1:
        middle = (near + far) // 2
        near, far = (near, middle) if _enough(over, middle, quantile, confidence) else (middle, far)
    return far


def _enough(over: int, n: int, quantile: float, confidence: float) -> bool:
    """P(at most `over` of n) <= 1 - confidence, as a value of the incomplete beta function."""
    from scipy.special import betainc

    return n > over and float(betainc(n - over, over + 1, quantile)) <= 1 - confidence
