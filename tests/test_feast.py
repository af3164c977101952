"""The Feast adapter and skew.features against Feast's own feature server, with SQLite and with Redis behind it, which nobody here wrote."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from agent import Fetched, Locator, Status
from agent.errors import AnswerError, ServerError, TargetError
from agent.targets import connect
from agent.wire import Wire
from checks import skew
from tests.conftest import need
from tests.test_mlserver import free_ports

pytestmark = pytest.mark.timeout(300)  # two servers that import for seconds each are set up in the first test
NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
TEN = NOW - timedelta(hours=2)
DRIVERS = range(1001, 1061)
OFFLINE = {"time": {"column": "at", "tz": "UTC"}, "entity": "driver", "features": ["rate", "trips", "city", "active"]}

# `stats` is materialised from the rows until half past ten; `cents` from a copy of them with every rate times a hundred.
SETUP = """
import sys
from datetime import datetime, timedelta, UTC
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float32, Int64, String

driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
schema = [Field(name="rate", dtype=Float32), Field(name="trips", dtype=Int64), Field(name="city", dtype=String), Field(name="active", dtype=Bool)]
made = [driver]
for name in ("stats", "cents"):
    source = FileSource(name=name, path=f"{name}.parquet", timestamp_field="at")
    view = FeatureView(name=name, entities=[driver], ttl=timedelta(0), online=True, source=source, schema=schema)
    made += [view, FeatureService(name=f"{name}_v1", features=[view])]
for repository in sys.argv[1:]:
    store = FeatureStore(repo_path=repository)
    store.apply(made)
    store.materialize(datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 29, 10, 30, tzinfo=UTC))
"""


CONFIG = """
project: p
provider: local
registry: registry.db
online_store: {ONLINE}
offline_store: {type: file}
entity_key_serialization_version: 3
"""


def truth(driver: int, hour: int, factor: float = 1.0) -> dict[str, Any]:
    trips = None if driver % 10 == 0 else driver % 13 + hour
    return {"rate": (driver / 7 + hour) * factor, "trips": trips, "city": ["Bonn", "Köln"][driver % 2], "active": driver % 3 == 0}


def table(factor: float = 1.0, hours: tuple[int, ...] = (8, 9, 10, 11)) -> pa.Table:
    """Every hour's row of every driver; 1060 began to drive at eleven."""
    at = {hour: NOW.replace(hour=hour, microsecond=250_000 if hour == 9 else 0) for hour in hours}
    rows = [{"driver": one, "at": at[hour], **truth(one, hour, factor)} for hour in hours for one in DRIVERS if one != 1060 or hour == 11]
    kinds = {
        "driver": pa.int64(),
        "at": pa.timestamp("us", "UTC"),
        "rate": pa.float32(),
        "trips": pa.int64(),
        "city": pa.string(),
        "active": pa.bool_(),
    }
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def repository(place: Path, online: str) -> Path:
    place.mkdir()
    (place / "feature_store.yaml").write_text(CONFIG.replace("ONLINE", online))
    for name, factor in (("stats", 1.0), ("cents", 100.0)):
        pyarrow.parquet.write_table(table(factor), place / f"{name}.parquet")
    return place


@pytest.fixture(scope="module")
def stores(feast: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`open(backing, **options)` connects to a feature server with that behind it; the setup is done once, the servers start when asked for."""
    place = tmp_path_factory.mktemp("feast")
    env = {**os.environ, "HOME": str(place), "FEAST_USAGE": "False"}
    with Served(feast, place, env) as served:
        yield served


class Served:
    def __init__(self, feast: Path, place: Path, env: dict[str, str]) -> None:
        self.feast, self.place, self.env, self.running, self.ports = feast, place, env, [], {}

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait(30)

    def port(self, backing: str) -> int:
        if backing not in self.ports:
            self.ports[backing] = self._start(backing)
        return self.ports[backing]

    def open(self, backing: str, **options: Any) -> Any:
        return connect(Locator("fraud", "online", f"feast+http://127.0.0.1:{self.port(backing)}", options or {"service": "stats_v1"}))

    def _start(self, backing: str) -> int:
        online = "type: sqlite, path: online.db"
        if backing == "redis":
            (port,) = free_ports(1)
            self._run("redis", [need("redis"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            online = f'type: redis, connection_string: "127.0.0.1:{port}"'
        home = repository(self.place / backing, online)
        done = subprocess.run([self.feast.parent / "python", "-c", SETUP, "."], cwd=home, env=self.env, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        (port,) = free_ports(1)
        process = self._run(backing, [self.feast, "serve", "-h", "127.0.0.1", "-p", port, "--no-access-log"])
        self._wait(process, port, self.place / f"{backing}.log")
        return port

    def _run(self, name: str, command: list[Any]) -> subprocess.Popen[bytes]:
        home = self.place / name if (self.place / name).is_dir() else self.place
        with (self.place / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([str(word) for word in command], cwd=home, env=self.env, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        store = connect(Locator("fraud", "online", f"feast+http://127.0.0.1:{port}", {"service": "stats_v1"}))
        for _ in range(900):
            try:
                if store.ready():
                    return store.close()
            except TargetError:
                assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        pytest.fail(log.read_text())


@pytest.fixture(params=["sqlite", "redis"])
def backed(request: pytest.FixtureRequest, stores: Any) -> Any:
    """One feature server, by what is behind it."""
    return SimpleNamespace(name=request.param, open=lambda **options: stores.open(request.param, **options), port=stores.port(request.param))


@pytest.fixture
def offline(tmp_path: Path) -> Any:
    """The rows as training reads them: `offline(*hours)`."""

    def until(*hours: int) -> Any:
        pyarrow.parquet.write_table(table(hours=hours), tmp_path / "stats.parquet")
        return connect(Locator("fraud", "offline", "parquet:stats.parquet", OFFLINE, folder=str(tmp_path)))

    return until


def test_feast_gives_values_and_their_event_times(backed):
    one, nobody = backed.open().features(["rate", "trips", "city", "active"], [{"driver": 1001}, {"driver": 9999}])
    assert one["rate"].value == pytest.approx(1001 / 7 + 10, rel=1e-6)
    assert {name: one[name] for name in ("trips", "city", "active")} == {
        "trips": Fetched(10, TEN),
        "city": Fetched("Köln", TEN),
        "active": Fetched(False, TEN),
    }
    assert set(nobody.values()) == {Fetched(None, None, False)}


def test_feast_calls_what_redis_never_had_present(backed):
    wire = Wire(Locator("fraud", "online", f"http://127.0.0.1:{backed.port}"))
    answer = wire.post("/get-online-features", json={"feature_service": "stats_v1", "entities": {"driver": [9999]}}).json()
    rate = answer["results"][answer["metadata"]["feature_names"].index("rate")]
    said = "PRESENT" if backed.name == "redis" else "NOT_FOUND"
    assert rate == {"values": [None], "statuses": [said], "event_timestamps": ["1970-01-01T00:00:00Z"]}


def test_a_null_that_was_materialised_is_there(backed):
    (row,) = backed.open().features(["trips"], [{"driver": 1010}])
    assert row == {"trips": Fetched(None, TEN, True)}


def test_feast_is_asked_for_many_entities_by_reference_and_with_full_names(backed):
    store = backed.open(features=["stats:rate", "cents:rate"], full_names=True, batch=7)
    found = store.features((), [{"driver": one} for one in DRIVERS])
    assert len(found) == 60
    assert all(row["cents__rate"].value == pytest.approx(row["stats__rate"].value * 100, rel=1e-6) for row in found[:-1])


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"service": "stats_v2"}, AnswerError, "stats_v2 does not exist"),
        ({"features": ["statts:rate"]}, AnswerError, "Feature view statts does not exist"),
        ({"features": ["stats:ratte"]}, ServerError, "ratte not found"),
    ],
)
def test_what_feast_does_not_know_is_told_in_its_words(stores, options, error, told):
    with pytest.raises(error, match=told):
        stores.open("sqlite", **options).features((), [{"driver": 1001}])


def test_a_wrong_name_or_key_is_an_error(stores):
    with pytest.raises(AnswerError, match="no feature 'ratte'; did you mean 'rate'"):
        stores.open("sqlite").features(["ratte"], [{"driver": 1001}])
    for entity in ({"drivers": 1001}, {"driver": "nobody"}, {"driver": None}):
        with pytest.raises(ServerError):
            stores.open("sqlite").features(["rate"], [entity])


def test_what_was_materialised_is_what_training_reads(backed, offline):
    verdict = skew.features(backed.open(), offline(8, 9, 10), NOW)
    assert (verdict.status, verdict.reason) == (Status.OK, "4 features are online as offline (59 entities)")


def test_rows_after_the_last_materialisation_are_late_and_an_entity_that_never_was_is_missing(backed, offline):
    verdict = skew.features(backed.open(), offline(8, 9, 10, 11), NOW, lag=timedelta(minutes=30))
    late = "late, not wrong: rate, city, active and 1 more in 100.0% (90.7% to 100.0%, limit 5.0%), up to 1h behind offline; was it materialised?"
    assert (verdict.status, verdict.reason) == (Status.FAIL, late)
    missing = {"rate": 1 / 60, "city": 1 / 60, "active": 1 / 60, "trips": 0}  # whose trips are null offline, too
    assert {name: verdict.parts[name].observed for name in missing} == missing
    patient = skew.features(backed.open(), offline(8, 9, 10, 11), NOW, lag=timedelta(hours=1, minutes=1))
    assert patient.status is Status.OK


def test_a_view_in_another_unit_is_found_by_its_ratio(backed, offline):
    verdict = skew.features(backed.open(service="cents_v1"), offline(8, 9, 10), NOW)
    assert verdict.status is Status.FAIL
    assert "1 of 4 features are online otherwise than offline (59 entities): rate is wrong in 100.0%" in verdict.reason
    assert "online is 100 times offline: another unit?" in verdict.reason
