"""Whether the model treats groups of people differently: measured, with its interval, for a person to accept or not."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agent import Columns, Json, Reading, Verdict, Window, check, fail, nodata, ok, warn
from agent.errors import ConfigError, DataError
from agent.stats import difference
from checks._labels import class_name


@check(pillar="learning", asks="How far apart are the groups in what the model decides for them?", severity="ticket", answers=("MODEL-08",))
def disparity(live: Columns, window: Window | None = None, *, group: str, positive: str, limit: float = 0.2, rows_at_least: int = 100) -> Verdict:
    """The share of each `group` (a column of the log) that is answered with `positive`, beside that of all others: Newcombe's interval (1998) of the
    difference. Surely beyond `limit` fails, not surely within it warns, all within is ok. Groups of fewer than `rows_at_least` rows are told, and not
    judged.
    """
    rows, answer = live if window is None else live.between(window.start, window.end), live.declared.get("prediction")
    if not answer:
        raise ConfigError("live declares no prediction, so that nobody's answer is known; add `prediction:` to it")
    for name in (group, answer):
        if name not in rows.kinds():
            raise DataError(f"there is no column '{name}'; there is {', '.join(list(rows.kinds())[:12])}")
    sizes, hits = _counted(rows, group, str(answer), positive)
    large = {name: n for name, n in sizes.items() if n >= rows_at_least}
    if len(large) < 2:
        small = f"{len(sizes)} groups in {sum(sizes.values())} rows, of which {len(large)} have {rows_at_least} rows"
        return nodata(f"{small}; two are needed", Reading(len(large), 2, unit="groups"))
    total, chosen = sum(sizes.values()), sum(hits.values())
    parts = {f"{group}={name}": _beside(hits[name], n, chosen - hits[name], total - n, limit) for name, n in large.items()}
    worst = max(parts.items(), key=lambda one: abs(one[1].observed or 0.0))
    low, high = worst[1].interval or (-1.0, 1.0)
    told = f"{worst[0]} is answered '{positive}' {worst[1].observed:+.1%} as often as all others ({low:+.1%} to {high:+.1%}), of {len(large)} groups"
    left = [f"{name} ({n})" for name, n in sizes.items() if name not in large]
    told += f"; too few rows to judge: {', '.join(left[:3])}" if left else ""
    if any(_beyond(one, limit) for one in parts.values()):
        return fail(f"{told}; surely more than {limit:.0%} apart", worst[1], parts=parts)
    within = all(one.interval is not None and max(map(abs, one.interval)) <= limit for one in parts.values())
    return ok(told, worst[1], parts=parts) if within else warn(f"{told}; not surely within {limit:.0%}", worst[1], parts=parts)


def _counted(rows: Columns, group: str, answer: str, positive: str) -> tuple[Counter[str], Counter[str]]:
    sizes: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for chunk in rows.chunks([group, answer]):
        for one, said in zip(chunk[group].tolist(), chunk[answer].tolist(), strict=True):
            name = _spelled(one)
            sizes[name] += 1
            hits[name] += _spelled(said) == positive
    return sizes, hits


def _spelled(cell: Any) -> Json:
    return "null" if cell is None or cell != cell else class_name(cell)


def _beside(hits: int, n: int, others: int, m: int, limit: float) -> Reading:
    return Reading(hits / n - (others / m if m else 0.0), limit, difference(hits, n, others, m), n)


def _beyond(one: Reading, limit: float) -> bool:
    low, high = one.interval or (-1.0, 1.0)
    return low > limit or high < -limit
