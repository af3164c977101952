"""Whether the model is served the features it was trained on: one entity's values by the offline and by the online path, at the same time."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from agent import UTC, Columns, Json, Kind, OnlineStore, Reading, Verdict, Window, check, nodata
from agent.errors import DataError
from checks._join import Key, Past, drawn, newest, past, shared, spelled, valued
from checks._paths import Paths
from checks._skew import Near, Seen, hashed, wrong
from checks._skew_told import Limits, verdict

SINCE = datetime(1970, 1, 1, tzinfo=UTC)
PER_ENTITY = 10  # recent rows read for each entity of the sample: busy ones come many times


@check(pillar="data", asks="Does the online store give the features that training reads offline?", cause="data", answers=("DATA-06",))
def features(
    online: OnlineStore,
    offline: Columns,
    now: datetime,
    live: Columns | None = None,
    window: Window | None = None,
    *,
    columns: list[str] | None = None,
    keys: list[str] | None = None,
    sample: int = 200,
    share: float = 0.01,
    late: float = 0.05,
    lag: timedelta = timedelta(hours=1),
    max_age: timedelta | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    entities_at_least: int = 30,
) -> Verdict:
    """Fails when, for a feature, the share of entities whose online value is wrong is surely above `share`, or that of late ones above `late`.

    A sample of recent entities (of `live` in the window where it has them, else of offline's newest rows) is asked of both paths. An online
    value is compared with the newest offline row at or before *its own* event time; a value without one, with the newest row. Late is what
    has a newer offline row that is itself older than `lag`: whether its value was right for its time is judged apart. Offline rows older
    than `max_age` (the store's time to live) do not count. What is newer online than offline and differs cannot be judged.
    `keys` defaults to offline's declared entity, `columns` to its declared features, else to what both sides have.
    """
    names = list(dict.fromkeys(keys or _entity(offline)))
    rows = offline.between(SINCE if max_age is None else now - max_age, now)
    kinds = rows.kinds()
    entities = _recent(rows, kinds, live, window, names, sample, int((window.end if window else now).timestamp()))
    if len(entities) < max(entities_at_least, 1):
        return nodata(f"{len(entities)} recent entities; {entities_at_least} are needed", Reading(len(entities), entities_at_least, unit="entities"))
    given = online.features(columns or _declared(offline), list(entities.values()))
    wanted = columns or [name for name in given[0] if name in kinds]
    history = past(rows, names, list(entities), offline.declared["time"]["column"])
    paths = Paths(history, [hashed(key) for key in entities], now.timestamp(), lag.total_seconds(), max_age)
    seen = [paths.compare(name, [one[name] for one in given], rows, kinds[name], Near(rtol, atol)) for name in _there(wanted, kinds)]
    apart = sorted({name for name in given[0] if name not in kinds})
    return verdict(seen, Limits(share, late, entities_at_least), "online", "offline", f"{len(entities)} entities", apart, False)


@check(pillar="data", asks="Are the features that were served those of the training rows with the same ids?", cause="data", answers=("DATA-06",))
def logged(
    live: Columns,
    reference: Columns,
    window: Window | None = None,
    *,
    columns: list[str] | None = None,
    key: str | None = None,
    sample: int = 1000,
    share: float = 0.01,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    rows_at_least: int = 30,
) -> Verdict:
    """Fails when, for a feature, the share of rows whose served value is not that of the training row of the same id is surely above `share`.

    Joined on `key`, else on the declared id of both, else on the declared entity of both: then the training row is the newest one at or
    before the served row's time, where both declare a time. A seeded sample of the shared ids is compared; of several rows with one id, the last.
    """
    rows = live.between(window.start, window.end) if window else live
    mine, theirs, timed = _joined(live, reference, key)
    seed = int(window.end.timestamp()) if window else 0
    ids, n, m = shared(rows, mine, reference, theirs, seed)
    if len(ids) < max(rows_at_least, 1):
        counted = Reading(len(ids), rows_at_least, unit="ids")
        return nodata(f"{len(ids)} ids are in both {n} served rows ({mine}) and {m} training rows ({theirs}); {rows_at_least} are needed", counted)
    wanted: list[Key] = [(one,) for one in drawn(ids, sample, seed)]
    served = past(rows, [mine], wanted, live.declared["time"]["column"] if timed else None)
    trained = past(reference, [theirs], wanted, reference.declared["time"]["column"] if timed else None)
    pairs = list(_matched(served, trained, len(wanted), timed))
    kinds, kinds_then = rows.kinds(), reference.kinds()
    there = {name: kind for name, kind in kinds_then.items() if name in kinds}
    names = _there(columns or _declared(live) or [name for name in there if _compares(name, live, reference)], there)
    seen = [_pairwise(name, rows, reference, served.rows, trained.rows, pairs, [hashed(one) for one in wanted], Near(rtol, atol)) for name in names]
    apart = [name for name in _declared(live) if name not in there]
    return verdict(seen, Limits(share, 1.0, rows_at_least), "served", "trained on", f"{len(pairs)} shared ids", apart, True)


# Who is asked, and for what


def _entity(offline: Columns) -> list[str]:
    for what in ("entity", "time"):
        if not offline.declared.get(what):
            raise DataError(f"offline declares no {what}; add `{what}: ...` to it{' or set `with: {keys: [...]}`' if what == 'entity' else ''}")
    return [str(offline.declared["entity"])]


def _recent(
    rows: Columns, kinds: Mapping[str, Kind], live: Columns | None, window: Window | None, names: Sequence[str], sample: int, seed: int
) -> dict[Key, dict[str, Json]]:
    """Distinct recent entities by their spelled keys, as they are asked for online; a busy one counts once. A log without the keys is passed over."""
    called = [str(live.declared.get("entity") or names[0])] if live is not None and len(names) == 1 else list(names)
    if live is None or not set(called) <= set(live.kinds()):
        source, called = rows, list(names)
    else:
        source = live.between(window.start, window.end) if window else live
    found: dict[Key, dict[str, Json]] = {}
    for row in newest(source, called, sample * PER_ENTITY):
        entity = {name: _as_key(row[mine], kinds.get(name)) for name, mine in zip(names, called, strict=True)}
        key = tuple(spelled(value) or "" for value in entity.values())
        if all(key):
            found.setdefault(key, entity)
    return dict(drawn(list(found.items()), sample, seed))


def _as_key(value: Json, kind: Kind | None) -> Json:
    """The key as the offline column holds it: a log may hold the number 7 as text, and a null among whole numbers makes floats of them."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind == "integer" and isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    return str(value) if kind == "text" and isinstance(value, int) else value


def _declared(table: Columns) -> list[str]:
    declared = table.declared.get("features") or ()
    if isinstance(declared, Mapping):
        return list(declared.get("names") or [f"{declared.get('prefix', 'p')}{place}" for place in range(int(declared.get("size", 0)))])
    return list(declared)


def _there(names: Sequence[str], kinds: Mapping[str, Kind]) -> list[str]:
    for name in names:
        if name not in kinds:
            near = difflib.get_close_matches(name, list(kinds), 1, 0.6)
            raise DataError(f"no feature '{name}' on both sides{f'; did you mean {near[0]!r}?' if near else f'; there is {sorted(kinds)[:12]}'}")
    return list(names)


# Served rows against training rows


def _joined(live: Columns, reference: Columns, key: str | None) -> tuple[str, str, bool]:
    """The column of each side that is joined on, and whether by time."""
    if key:
        return key, key, False
    for what in ("id", "entity"):
        mine, theirs = live.declared.get(what), reference.declared.get(what)
        if mine and theirs:
            return str(mine), str(theirs), what == "entity" and bool(live.declared.get("time")) and bool(reference.declared.get("time"))
    raise DataError("live and reference declare neither an id nor an entity both; add `id:` to each, or set `with: {key: ...}`")


def _matched(served: Past, trained: Past, count: int, timed: bool) -> Iterator[tuple[int, int, int]]:
    """Who, the place in the served rows and that in the training rows."""
    for who in range(count):
        if served.places[who]:
            place = served.places[who][-1]
            then = trained.before(who, served.times[who][-1] if timed else float("inf"))
            if then is not None:
                yield who, place, then


def _pairwise(
    name: str, rows: Columns, reference: Columns, n: int, m: int, pairs: Sequence[tuple[int, int, int]], hashes: Sequence[str], near: Near
) -> Seen:
    now, then = valued(rows, name, [place for _, place, _ in pairs], n), valued(reference, name, [place for _, _, place in pairs], m)
    seen = Seen(name)
    for who, place, before in pairs:
        seen.add(wrong(then[before], now[place], near), then[before], now[place], hashes[who])
    return seen


def _compares(name: str, live: Columns, reference: Columns) -> bool:
    """Whether a column that both have is a feature, as far as the declarations tell."""
    for table in (live, reference):
        declared = [table.declared.get(what) for what in ("id", "entity", "version", "prediction", "score", "weight")]
        declared += [(table.declared.get("time") or {}).get("column"), *(rule["column"] for rule in table.declared.get("exclude") or ())]
        if name in declared:
            return False
    return True
