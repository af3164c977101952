"""Whether each feature earns its cost: what changes in the served answers when its values are dealt to other rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent import Columns, Json, Reading, Registry, Server, Verdict, Window, check, fail, fill, golden_rows, logged, nodata, ok, warn
from agent.errors import AnswerError
from agent.stats import wilson
from checks._answers import gaps
from checks._columns import declared
from checks._recent import RECORD

PARTS = 100  # features kept in a finding, the least important first


@check(pillar="training", asks="Does each feature earn its cost?", severity="ticket", answers=("DATA-08",))
def features(
    server: Server,
    live: Columns,
    window: Window | None = None,
    registry: Registry | None = None,
    tell: Callable[[float, str], None] = lambda done, what: None,
    *,
    rows: int = 50,
    least: float = 0.0,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    useless: float = 0.05,
    request: Json = None,
) -> Verdict:
    """Permutation importance (Breiman 2001) through the server: the newest `rows` logged inputs are asked as they are, and once more for each feature
    with its value taken from the next row. A feature's importance is the share of rows whose answer then differs beyond atol + rtol; with none above
    `least` it is useless. At most `useless` of the features useless is ok, four times that warns, more fails. It asks rows x features requests, as
    probes.
    """
    inputs = [one for one in logged(live if window is None else live.between(window.start, window.end), rows) if isinstance(one, (list, dict))]
    template = request if request is not None else next((row.request for row in golden_rows(server, registry)), None)
    if template is None:
        return nodata(f"no request to put the inputs in: set `with: {{request: ...}}` with {{inputs}} where they go, or {RECORD}")
    asked = [(one, wanted) for one in inputs if (wanted := fill(template, one)) is not None]
    answered = [(one, body) for one, wanted in asked if (body := _answer(server, wanted)) is not None]
    if len(answered) < 2:
        return nodata(f"{len(answered)} of {len(inputs)} logged inputs are answered; two are needed to exchange a value", Reading(len(answered), 2))
    names = _names(live, answered[0][0])
    found: dict[str, Reading] = {}
    for place, (name, key) in enumerate(names):
        tell(place / len(names), name)
        found[name] = _importance(server, template, answered, key, least, rtol, atol)
    return _told(found, least, useless, len(answered))


def _names(live: Columns, one: Json) -> list[tuple[str, Any]]:
    """(name, where it stands in a logged input) of each feature."""
    if isinstance(one, dict):
        return [(name, name) for name in one]
    named = declared(live)
    return [(named[place] if place < len(named) else f"{place}", place) for place in range(len(one))]


def _importance(server: Server, template: Json, answered: Sequence[tuple[Json, Json]], key: Any, least: float, rtol: float, atol: float) -> Reading:
    """The share of rows whose answer depends on it; of a feature that is the same in all rows, none does."""
    tried, changed = 0, 0
    for place, (one, before) in enumerate(answered):
        other = answered[(place + 1) % len(answered)][0]
        value = _taken(other, key)
        if value is None or value == _taken(one, key):
            continue
        mixed = {**one, key: value} if isinstance(one, dict) else [*one[:key], value, *one[key + 1 :]]
        after = _answer(server, fill(template, mixed))
        tried += 1
        changed += after is None or any(True for _ in gaps(before, after, rtol, atol))
    return Reading(changed / tried if tried else 0.0, least, wilson(changed, tried), tried)


def _taken(one: Json, key: Any) -> Json:
    if isinstance(one, dict):
        return one.get(key)
    return one[key] if key < len(one) else None


def _answer(server: Server, request: Json) -> Json:
    """The body; None where this input is not answered."""
    try:
        return server.infer(request).body
    except AnswerError as problem:
        if problem.status is None or problem.status >= 500:
            raise
        return None


def _told(found: dict[str, Reading], least: float, useless: float, n: int) -> Verdict:
    ranked = sorted(found.items(), key=lambda one: (one[1].observed or 0.0, one[0]))
    idle = [name for name, one in ranked if (one.observed or 0.0) <= least]
    share = len(idle) / max(len(found), 1)
    reading, parts = Reading(share, useless, n=len(found), unit="features"), dict(ranked[:PARTS])
    told = f"{len(idle)} of {len(found)} features change none of {n} answers" + (f": {', '.join(idle[:5])}" if idle else "")
    return (ok if share <= useless else warn if share <= 4 * useless else fail)(told, reading, parts=parts)
