"""A verdict on features compared, in words: which are wrong and how, which are late, and what could not be judged. No id and no value is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent import Reading, Verdict, fail, nodata, ok, spell, warn
from checks._skew import Seen, told

LEVEL = 0.95  # of all intervals of one look together


@dataclass(frozen=True, slots=True)
class Limits:
    """What a look is held to."""

    share: float
    late: float
    at_least: int


def verdict(seen: list[Seen], limits: Limits, given: str, expected: str, of: str, apart: Sequence[str], needed: bool) -> Verdict:
    """Fail where an interval is surely above its limit; warn where a share is, or a feature could not be judged (`apart` too, if `needed`)."""
    if not seen:
        return nodata(f"no feature is on both sides ({of}){_aside(seen, apart)}")
    level = 1 - (1 - LEVEL) / (2 * len(seen))
    shares = {one.name: one.share(limits.share, level) for one in seen}
    lateness = {one.name: one.lateness(limits.late, level) for one in seen if one.late}
    seen = sorted(seen, key=lambda one: (-_surely(shares[one.name]), -(shares[one.name].observed or 0)))
    bad = [one for one in seen if _surely(shares[one.name]) > 0]
    tardy = sorted((one for one in seen if one.name in lateness and _surely(lateness[one.name]) > 0), key=lambda one: -one.late)
    blind = [one.name for one in seen if one.judged < max(limits.at_least, 1)]
    parts = {one.name: shares[one.name] for one in seen} | {f"{name}.late": reading for name, reading in lateness.items()}
    more: dict[str, Any] = {"parts": parts, "data": {"skew.json": _file(seen, given, expected)}}
    reading, aside = shares[seen[0].name], _aside(seen, apart)
    if bad or tardy:
        words = [_several(bad, seen, shares, given, expected, of), _tardy(tardy, lateness)]
        return fail(f"{'; '.join(filter(None, words))}{aside}", reading if bad else lateness[tardy[0].name], **more)
    if len(blind) == len(seen):
        return nodata(f"too few of {of} could be judged; {limits.at_least} are needed{aside}", reading, **more)
    if over := _over(seen, shares, lateness, limits):
        return warn(f"{over}, not surely above the limit; a larger sample would tell{aside}", reading, **more)
    if blind or (apart and needed):
        return warn(
            f"too few values of {', '.join([*blind, *apart][:5])} to judge; the others are {given} as {expected} ({of}){aside}", reading, **more
        )
    return ok(f"{len(seen)} features are {given} as {expected} ({of}){aside}", reading, **more)


def _over(seen: Sequence[Seen], shares: Mapping[str, Reading], lateness: Mapping[str, Reading], limits: Limits) -> str:
    """What is above its limit and may be so by chance."""
    words = [f"{one.name} differs in {one.wrong} of {one.judged}" for one in seen if (shares[one.name].observed or 0) > limits.share]
    words += [f"{name} is late in {one.observed:.1%}" for name, one in lateness.items() if (one.observed or 0) > limits.late]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _surely(reading: Reading) -> float:
    """How far the lower end of the interval is above the limit."""
    return reading.interval[0] - reading.limit if reading.interval and reading.limit is not None and reading.n else -1.0


def _several(bad: list[Seen], seen: list[Seen], shares: Mapping[str, Reading], given: str, expected: str, of: str) -> str:
    if not bad:
        return ""
    if all(one.causes["missing"] == one.judged for one in bad) and len(bad) == len(seen):
        return f"{given} has nothing for any of {of}: not materialised, or keys of another type or spelling (such as {bad[0].who[0]})"
    words = [f"{one.name} is wrong {_spelt(shares[one.name])}: {told(one, given, expected, seen)}, such as {one.who[0]}" for one in bad[:3]]
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"{len(bad)} of {len(seen)} features are {given} otherwise than {expected} ({of}): {'; '.join(words)}{more}"


def _tardy(tardy: list[Seen], lateness: Mapping[str, Reading]) -> str:
    if not tardy:
        return ""
    behind = spell(timedelta(seconds=max(one.behind for one in tardy)))
    names = ", ".join(one.name for one in tardy[:3]) + (f" and {len(tardy) - 3} more" if len(tardy) > 3 else "")
    return f"late, not wrong: {names} {_spelt(lateness[tardy[0].name])}, up to {behind} behind offline; was it materialised?"


def _spelt(reading: Reading) -> str:
    low, high = reading.interval or (0.0, 1.0)
    return f"in {reading.observed or 0:.1%} ({low:.1%} to {high:.1%}, limit {reading.limit:.1%})"


def _aside(seen: Sequence[Seen], apart: Sequence[str]) -> str:
    words = []
    if ahead := max((one.ahead for one in seen), default=0):
        words.append(f"{ahead} newer online than offline, which cannot be judged")
    if untold := max((one.untold for one in seen), default=0):
        words.append(f"{untold} without an offline row to judge them by")
    if apart:
        words.append(f"on one side only: {', '.join(apart[:5])}{' ...' if len(apart) > 5 else ''}")
    return f" ({'; '.join(words)})" if words else ""


def _file(seen: Sequence[Seen], given: str, expected: str) -> bytes:
    """Every count, and hashes of entities; no id and no value."""
    lines = [
        {
            "feature": one.name,
            "judged": one.judged,
            "wrong": dict(one.causes),
            "pattern": told(one, given, expected, seen) if one.wrong else "",
            "late": one.late,
            "behind_seconds": one.behind,
            "newer_online": one.ahead,
            "without_offline_row": one.untold,
            "such_as": one.who[:5],
        }
        for one in seen
    ]
    return json.dumps({"features": lines}, indent=1).encode()
