"""Whether a prediction of the past can be found, asked again, and explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta

from agent import UTC, Ask, Columns, Json, Reading, Registry, Server, Verdict, check, fail, fill, golden_rows, nodata, ok, served, spell, warn
from agent.errors import AnswerError
from checks._answers import flat, is_tensor, outputs
from checks._recent import RECORD

FIELDS = ("id", "time", "version", "features", "prediction")


@check(pillar="monitoring", asks="Can any logged prediction be replayed and explained?", severity="ticket", answers=("MON-02",))
def predictions(
    server: Server,
    live: Columns,
    now: datetime,
    registry: Registry | None = None,
    *,
    rows: int = 50,
    kept: timedelta = timedelta(days=183),
    rtol: float = 1e-3,
    atol: float = 1e-6,
    share: float = 0.99,
    output: str | None = None,
    request: Json = None,
) -> Verdict:
    """Asks the newest `rows` logged inputs of the version that serves again, and compares the answer (the first value of `output`, or of the first
    one) with the prediction that was logged. The log must have an id, a time, a version, the inputs and the prediction, and reach back `kept`.

    `share` of them equal, and all that: ok. 90 %, or a shorter log: warns. Fewer, or a log that lacks a field, fails. Asked as probes.
    """
    lacking = [name for name in FIELDS if not live.declared.get(name)]
    if lacking:
        return fail(f"the log declares no {', '.join(lacking)}, so that a prediction cannot be traced", Reading(len(lacking), 0, unit="fields"))
    template = request if request is not None else next((row.request for row in golden_rows(server, registry)), None)
    if template is None:
        return nodata(f"no request to put the inputs in: set `with: {{request: ...}}` with {{inputs}} where they go, or {RECORD}")
    version = served(server, registry)
    same = [_again(server, template, inputs, said, output, rtol, atol) for inputs, said in _logged(live, rows, version)]
    asked = [one for one in same if one is not None]
    if not asked:
        return nodata(f"none of the newest {rows} logged rows is of version {version}, which serves, and can be asked again")
    part, age = sum(asked) / len(asked), _age(live, now)
    reading = Reading(part, share, n=len(asked))
    told = f"{sum(asked)} of {len(asked)} logged predictions of version {version} come out the same; the log reaches back {spell(age)}"
    if part < 0.9:
        return fail(told, reading)
    return ok(told, reading) if part >= share and age >= kept else warn(f"{told}, and {spell(kept)} is wanted" if age < kept else told, reading)


def _logged(live: Columns, rows: int, version: str | None) -> Iterator[tuple[Json, Json]]:
    """(inputs as they were sent, the prediction) of the newest rows of a version, of ten times as many that are looked at."""
    declared = live.declared
    features, named, answer = declared["features"], str(declared["version"]), str(declared["prediction"])
    columns = [str(features["json"])] if isinstance(features, dict) else [str(name) for name in features]
    found = 0
    for row in live.head(list(dict.fromkeys([*columns, named, answer])), 10 * rows):
        if (version is None or str(row[named]) == version) and found < rows:
            found += 1
            yield _parsed(row[columns[0]]) if isinstance(features, dict) else {name: row[name] for name in columns}, row[answer]


def _parsed(text: Json) -> Json:
    try:
        return json.loads(text) if isinstance(text, str | bytes) else text
    except ValueError:
        return None


def _again(server: Server, template: Json, inputs: Json, said: Json, output: str | None, rtol: float, atol: float) -> bool | None:
    """Whether it comes out as it was logged; None where it cannot be asked."""
    request = fill(template, inputs) if inputs is not None else None
    if request is None:
        return None
    try:
        body = server.infer(request).body
    except AnswerError as problem:
        if problem.status is None or problem.status >= 500:
            raise
        return False
    named = outputs(body)
    chosen = named.get(output) if output else next(iter(named.values()), None)
    held = chosen["data"] if isinstance(chosen, dict) and is_tensor(chosen) else chosen
    value = next(flat(held), None)
    return _equal(value, said, rtol, atol)


def _equal(value: Json, said: Json, rtol: float, atol: float) -> bool:
    """Logs hold numbers as text, too."""
    try:
        return abs(float(value) - float(said)) <= atol + rtol * abs(float(said))
    except (TypeError, ValueError):
        return str(value) == str(said)


def _age(live: Columns, now: datetime) -> timedelta:
    column = str(live.declared["time"]["column"])
    oldest = live.tally([Ask(column)])[column].low
    return timedelta() if oldest is None else now - datetime.fromtimestamp(oldest, UTC)
