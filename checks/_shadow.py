"""Pairs of answers to one request, from two versions, and what their counts prove about a share at whatever moment one looks.

A share p0 is refuted when the likelihood of the counts, averaged over all shares (uniformly), is at least 1 / alpha times that under p0. Under p0
that average is a martingale of mean 1, so by Ville's inequality it gets there at any look ever with a chance of at most alpha (Robbins, Annals of
Mathematical Statistics 1970). It falls towards the share that was seen, so with p0 everything beyond it is refuted as well. What it rests on:
whether one request is answered worse says nothing about the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent import Answer, Json, Reading, Server
from checks._answers import gaps, size
from checks._recent import answered


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What was seen so far: requests that the old version answered well, how many of these the new one did not, how many it answered otherwise.

    `gained` are those that only the new version answered well; the seconds are those of answers by both.
    """

    judged: int = 0
    lost: int = 0
    apart: int = 0
    gained: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    example: str = ""  # what was wrong with the first answer that was lost
    unlike: str = ""  # how the first of those apart differed

    def share(self, hits: int, limit: float | None) -> Reading:
        return Reading(hits / self.judged if self.judged else None, limit, n=self.judged)


def refuted(hits: int, n: int, share: float, alpha: float) -> bool:
    """Whether the share is surely another one, at any look; no share is refuted by nothing."""
    miss = n - hits
    if (share <= 0 and hits) or (share >= 1 and miss):
        return True
    mixed = math.lgamma(hits + 1) + math.lgamma(miss + 1) - math.lgamma(n + 2)
    under = (hits * math.log(share) if hits else 0.0) + (miss * math.log1p(-share) if miss else 0.0)
    return mixed - under >= -math.log(alpha)


def asked(old: Server, new: Server, requests: Sequence[Json], seen: Shadowed, rtol: float, atol: float) -> Shadowed:
    """After both were asked each request: one after the other, and the other way round the next time, so that neither always comes second."""
    for place, request in enumerate(requests):
        if place % 2:
            new_said, old_said = answered(new, request), answered(old, request)
        else:
            old_said, new_said = answered(old, request), answered(new, request)
        seen = _counted(seen, old_said, new_said, rtol, atol)
    return seen


def _counted(seen: Shadowed, old: Answer | str, new: Answer | str, rtol: float, atol: float) -> Shadowed:
    if isinstance(old, str):
        return seen if isinstance(new, str) else replace(seen, gained=seen.gained + 1)
    judged = replace(seen, judged=seen.judged + 1)
    if isinstance(new, str):
        return replace(judged, lost=seen.lost + 1, example=seen.example or new)
    judged = replace(judged, seconds=(seen.seconds[0] + old.seconds, seen.seconds[1] + new.seconds))
    worst = max(gaps(old.body, new.body, rtol, atol), key=size, default=None)
    return judged if worst is None else replace(judged, apart=seen.apart + 1, unlike=seen.unlike or f"'{worst.output}' {worst.what}")
