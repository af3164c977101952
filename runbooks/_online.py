"""A trainer of models that learn row by row, such as River's: `python -m runbooks._online`, run by the trainer `command`.

Each row is answered before it is learned, so that every one of them is a test (prequential evaluation: Dawid 1984; Gama, Sebastião and Rodrigues
2013). What was learned is handed in as bytes that only this program reads again, in the process and the environment of whoever runs it: they are a
pickle, which can run code, so it opens none but the champion's, and that only with the digest that it was registered by. The agent never opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from agent import Json, asked, function, hand_in
from agent.errors import TrainingError, WatchkeeperError

STATE = "state.bin"
TELLS = 10_000  # rows between two lines of progress
KNOWN = ("factory", "label", "features", "metrics", "last")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job asks for: `factory` makes a new model, `metrics` are names of River's, `last` says of how many rows they are told as well."""

    factory: str
    label: str
    features: tuple[str, ...]
    metrics: tuple[str, ...]
    last: int

    @classmethod
    def of(cls, given: Mapping[str, Json]) -> Wanted:
        """TrainingError for a parameter that is missing, unknown or of another type."""
        if odd := sorted(set(given) - set(KNOWN)):
            raise TrainingError(f"no parameter '{odd[0]}'; there is {', '.join(KNOWN)}")
        for name in ("factory", "label"):
            if not isinstance(given.get(name), str):
                raise TrainingError(f"`{name}` is {given.get(name)!r:.40}, and must be text")
        features, metrics, last = given.get("features", []), given.get("metrics", ["Accuracy"]), given.get("last", 1000)
        if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in (features, metrics)):
            raise TrainingError("`features` and `metrics` must be lists of names")
        if not isinstance(last, int) or isinstance(last, bool) or last < 1:
            raise TrainingError(f"`last` is {last!r:.40}, and must be a number of rows")
        return cls(given["factory"], given["label"], tuple(features), tuple(metrics), last)


def main() -> int:
    """0 when a model was handed in; 1, and why on the last line, when it was not."""
    try:
        _trained(Path(os.environ["WATCHKEEPER_JOB"]))
    except (WatchkeeperError, OSError) as problem:
        print(problem, file=sys.stderr)  # noqa: T201 - the log of the job is where its end is read
        return 1
    return 0


def _trained(home: Path) -> None:
    spec = asked(home)
    wanted = Wanted.of(spec.get("parameters") or {})
    train = (spec.get("data") or {}).get("train")
    if train is None:
        raise TrainingError("there is no table `train` in what was asked")
    model = _known(spec.get("champion") or {}) or _made(wanted.factory)
    scores = [Score(name, wanted.last) for name in wanted.metrics]
    seen = learn(model, _rows(Path(train["path"]), train["sha256"], wanted), scores, train["rows"])
    (home / STATE).write_bytes(pickle.dumps(model))
    hand_in(home, spec, [STATE], rows=seen, metrics={name: value for score in scores for name, value in score.told().items()})


# What was learned before


def _known(champion: Mapping[str, Any]) -> Any:
    """The champion as it was when it was registered; None where there is none. TrainingError where its bytes are others."""
    path, digest = ((champion.get(what) or {}).get(STATE) for what in ("files", "sha256"))
    if path is None:
        return None
    body = Path(path).read_bytes()
    if digest is None or hashlib.sha256(body).hexdigest() != digest:
        raise TrainingError(f"{path} is not what was registered, and is not opened: it could run any code")
    return pickle.loads(body)  # noqa: S301 - what this program wrote, by its digest


def _made(factory: str) -> Any:
    try:
        return function(factory)()
    except Exception as problem:
        raise TrainingError(f"{factory} makes no model ({type(problem).__name__}: {str(problem)[:300]})") from problem


# Rows


def _rows(path: Path, sha256: str, wanted: Wanted) -> Iterator[tuple[Mapping[str, Json], Json]]:
    """Features and truth of each row in the order they lie in; a null is left out of the features, a row without a label altogether."""
    import pyarrow.parquet

    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise TrainingError(f"{path} is not what was pinned; pin the rows again")
        table = pyarrow.parquet.ParquetFile(stream)
        names = wanted.features or tuple(name for name in table.schema_arrow.names if name != wanted.label)
        if missing := [name for name in (*names, wanted.label) if name not in table.schema_arrow.names]:
            raise TrainingError(f"the rows have no column '{missing[0]}'; there is {', '.join(table.schema_arrow.names)}")
        for batch in table.iter_batches(columns=[*names, wanted.label]):
            for row in batch.to_pylist():
                if _there(truth := row.pop(wanted.label)):
                    yield {name: value for name, value in row.items() if _there(value)}, truth


def _there(value: Json) -> bool:
    return value is not None and value == value


# Learning


class Score:
    """One of River's metrics over all rows (`prequential.NAME`), and over the last of them (`last.NAME`)."""

    def __init__(self, name: str, last: int) -> None:
        made = getattr(_river("metrics"), name, None)
        if made is None:
            raise TrainingError(f"River has no metric '{name}'; look in river.metrics")
        self._name, self._made, self._whole = name, made, made()
        self._last: deque[tuple[Json, Json]] = deque(maxlen=last)

    def update(self, model: Any, features: Mapping[str, Json], truth: Json) -> None:
        """Count one answer; none is counted of a model that gives none yet."""
        answer = model.predict_one(features) if getattr(self._whole, "requires_labels", True) else model.predict_proba_one(features)
        if answer is not None and answer != {}:
            self._whole.update(truth, answer)
            self._last.append((truth, answer))

    def told(self) -> Mapping[str, float]:
        """Its numbers; nothing where the model never gave an answer."""
        if not self._last:
            return {}
        late = self._made()
        for truth, answer in self._last:
            late.update(truth, answer)
        return {f"prequential.{self._name}": float(self._whole.get()), f"last.{self._name}": float(late.get())}


def _river(part: str) -> Any:
    try:
        return import_module(f"river.{part}")
    except ImportError as problem:
        raise TrainingError(f"river is not installed where this runs ({problem}); install watchkeeper[river]") from problem


def learn(model: Any, rows: Iterator[tuple[Mapping[str, Json], Json]], scores: Sequence[Score], expected: int) -> int:
    """Answer each row, then learn it, and give how many there were. TrainingError says which row the model cannot take."""
    seen = 0
    for features, truth in rows:
        try:
            for score in scores:
                score.update(model, features, truth)
            model.learn_one(features, truth)
        except Exception as problem:
            raise TrainingError(f"row {seen}: the model cannot take it ({type(problem).__name__}: {str(problem)[:300]})") from problem
        seen += 1
        if seen % TELLS == 0:
            print(json.dumps({"done": min(seen / max(expected, 1), 1.0), "what": f"{seen:,} rows"}), flush=True)  # noqa: T201 - how progress is told
    if not seen:
        raise TrainingError("no row has a label: there is nothing to learn from")
    return seen


if __name__ == "__main__":
    sys.exit(main())
