"""Prediction logs with labels that come later, as real Parquet files."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agent import Locator, Window
from agent.targets.files import Files

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIVE = {"time": {"column": "at", "unit": "s"}, "id": "id", "prediction": "prediction", "score": "score"}
LABELS = {"key": "id", "label": "label", "time": {"column": "known_at", "unit": "s"}, "delay": 86_400.0}


def table(folder, role, options, **columns):
    """A table adapter over these columns; lists and arrays alike."""
    path = folder / f"{role}.parquet"
    path.unlink(missing_ok=True)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return Files(Locator("fraud", role, f"parquet:{role}.parquet", options, folder=str(folder)))


def hours(count, first=0, per_hour=100):
    """Event times, evenly through so many hours."""
    return START.timestamp() + first * 3600 + np.arange(count * per_hour) * 3600 / per_hour


def window(first, count=1, delay=timedelta(days=1)):
    """The window of the platform that judges these hours: the delay later."""
    return Window(START + first * HOUR + delay, START + (first + count) * HOUR + delay)


def logged(folder, at, prediction, label, score=None, keep=None, live=None, labels=None, more=None, late=3600.0):
    """A live table and its labels, each known an hour after its prediction; `keep` says which rows have one."""
    ids = [f"id{place}" for place in range(len(at))]
    keep = np.ones(len(at), bool) if keep is None else keep
    columns = {"at": at, "id": ids, "prediction": prediction} | ({} if score is None else {"score": score}) | (more or {})
    declared = {name: value for name, value in LIVE.items() if name != "score" or score is not None}
    return (
        table(folder, "live", declared | (live or {}), **columns),
        table(
            folder,
            "labels",
            LABELS | (labels or {}),
            id=[one for one, kept in zip(ids, keep, strict=True) if kept],
            label=[one for one, kept in zip(list(label), keep, strict=True) if kept],
            known_at=(np.asarray(at) + late)[keep],
        ),
    )
