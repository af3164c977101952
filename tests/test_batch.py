"""batch.completed on real files: a run that was made in time, whole and once passes; one that was not says what is wrong with it."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from agent import Locator, Reading, Status, Window
from agent.errors import ConfigError
from agent.perform import perform
from checks.batch import completed
from tests.logs import opened, write

DAY = datetime(2026, 3, 10, tzinfo=UTC)
OUT = {"time": {"column": "scored_at", "tz": "UTC"}, "id": "id", "version": "version"}
IN = {"time": {"column": "at", "tz": "UTC"}}


def scored(count=40, at=DAY + timedelta(hours=5), **columns):
    """A run of one row a second, with some columns made by a function of the row's place."""
    usual = {
        "scored_at": lambda n: (at + timedelta(seconds=n)).isoformat(),
        "id": lambda n: f"id{n}",
        "version": lambda n: "41",
        "score": lambda n: n / 40,
    }
    return [{name: made(n) for name, made in (usual | columns).items()} for n in range(count)]


def judged(folder, rows, form="sqlite", inputs=None, end=DAY + timedelta(hours=7), options=OUT, length=timedelta(days=1), **settings):
    table = opened(folder, write(folder, form, rows, {"version": pa.string()}), options)
    return completed(table, Window(end - length, end), given(folder, inputs), **settings)


def given(folder, count, options=IN):
    if count is None:
        return None
    (folder / "in").mkdir(exist_ok=True)
    rows = [{"at": (DAY + timedelta(hours=1, seconds=n)).isoformat(), "x": n} for n in range(count)]
    return opened(folder / "in", write(folder / "in", "csv", rows), options)


def test_a_run_in_time_whole_and_once_is_ok_in_every_format(tmp_path, form):
    verdict = judged(tmp_path, scored(), form, inputs=40, by="06:00", version="41", rows_at_least=10)
    assert (verdict.status, verdict.reason) == (Status.OK, "40 rows by 2026-03-10 06:00 UTC, as they should be")
    assert set(verdict.parts) == {"rows", "inputs", "version", "id.repeated"}
    assert verdict.parts["inputs"] == Reading(0, 0, n=40, unit="rows")


def test_a_run_that_did_not_happen_fails(tmp_path, form):
    verdict = judged(tmp_path, scored(at=DAY - timedelta(days=3)), form, by="06:00")
    assert verdict.status is Status.FAIL
    assert verdict.reason == "no row scored from 2026-03-09 06:00 to 2026-03-10 06:00 UTC, at least 1 should have been"


def test_a_run_that_comes_late_says_that_it_came(tmp_path, form):
    verdict = judged(tmp_path, scored(at=DAY + timedelta(hours=6, minutes=10)), form, by="06:00")
    assert verdict.reason == "no row scored from 2026-03-09 06:00 to 2026-03-10 06:00 UTC, at least 1 should have been; 40 came later"


def test_a_run_that_is_half_done_by_the_deadline_is_short_of_its_input(tmp_path):
    verdict = judged(tmp_path, scored(at=DAY + timedelta(hours=6) - timedelta(seconds=30)), inputs=40, by="06:00")
    assert verdict.reason == "30 rows out of 40 rows in (tolerance 0); 10 came after the deadline"


def test_until_the_next_deadline_the_last_run_is_judged_and_the_next_is_left_alone(tmp_path):
    for hours in (7, 20, 29):
        assert judged(tmp_path, scored() + scored(5, DAY + timedelta(hours=28)), inputs=40, by="06:00", end=DAY + timedelta(hours=hours)).good
    verdict = judged(tmp_path, scored() + scored(5, DAY + timedelta(hours=28)), by="06:00", rows_at_least=40, end=DAY + timedelta(hours=30))
    assert verdict.reason.startswith("5 rows scored from 2026-03-10 06:00 to 2026-03-11 06:00 UTC, at least 40")


def test_the_deadline_is_a_time_of_day_in_its_zone_also_when_clocks_change(tmp_path):
    night = datetime(2026, 3, 29, 3, 30, tzinfo=UTC)  # 05:30 in Berlin, on the first morning of summer time
    rows = scored(at=night)
    assert judged(tmp_path, rows, by="06:00", tz="Europe/Berlin", end=night + timedelta(hours=1)).reason.startswith("40 rows by 2026-03-29 04:00 UTC")
    assert not judged(tmp_path, rows, by="05:00", tz="Europe/Berlin", end=night + timedelta(hours=1)).good


def test_without_a_time_of_day_the_deadline_lies_before_the_end_of_the_window(tmp_path):
    assert judged(tmp_path, scored()).good
    assert judged(tmp_path, scored(), before_end=timedelta(hours=1)).good
    assert "40 came later" in judged(tmp_path, scored(), before_end=timedelta(hours=3)).reason


@pytest.mark.parametrize(("count", "tolerance", "good"), [(40, 0, True), (42, 2, True), (38, 2, True), (43, 2, False), (37, 2, False)])
def test_as_many_rows_come_out_as_went_in_give_or_take(tmp_path, count, tolerance, good):
    verdict = judged(tmp_path, scored(), inputs=count, tolerance=tolerance)
    assert verdict.good == good
    assert verdict.parts["inputs"] == Reading(abs(40 - count), tolerance, n=count, unit="rows")


def test_inputs_without_a_time_are_counted_whole(tmp_path):
    table = opened(tmp_path, write(tmp_path, "sqlite", scored()), OUT)
    window = Window(DAY + timedelta(days=300), DAY + timedelta(days=301))
    assert "0 rows out of 40 rows in" in completed(table, window, given(tmp_path, 40, {})).reason


def test_two_versions_and_another_than_expected_fail(tmp_path, form):
    assert judged(tmp_path, scored(version=lambda n: "42" if n > 30 else "41"), form).reason == "scored by more than one version: 41, 42"
    assert judged(tmp_path, scored(), form, version="42").reason == "scored by version 41, not 42"
    assert judged(tmp_path, scored(version=lambda n: None if n == 3 else "41"), form).reason == "1 of 40 rows bear no version"
    assert set(judged(tmp_path, scored(version=lambda n: None), form, version="41").parts) == {"rows", "version", "version.missing", "id.repeated"}


def test_a_column_of_versions_that_holds_anything_is_counted_and_not_told(tmp_path):
    reason = judged(tmp_path, scored(version=lambda n: f"ada{n}@example.com")).reason
    assert reason == "scored by more than one version: at least 40"


def test_an_id_that_comes_twice_is_told_by_its_hash(tmp_path, form):
    verdict = judged(tmp_path, scored(id=lambda n: "id7" if n in (8, 9) else f"id{n}"), form)
    assert verdict.reason == "2 of 40 rows repeat an id (sha256 of the id begins 3dcd9ba6a2d1, 3dcd9ba6a2d1)".replace("3dcd9ba6a2d1", sha("id7"))
    assert verdict.parts["id.repeated"] == Reading(2, 0, n=40, unit="rows")


def sha(text):
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_whole_number_ids_beyond_floats_are_told_apart(tmp_path, form):
    assert judged(tmp_path, scored(id=lambda n: 2**60 + n), form).good


def test_a_table_that_declares_only_its_time_is_judged_by_its_rows(tmp_path):
    verdict = judged(tmp_path, scored(), options={"time": OUT["time"]})
    assert list(verdict.parts) == ["rows"]
    with pytest.raises(ConfigError, match="declares no version column"):
        judged(tmp_path, scored(), options={"time": OUT["time"]}, version="41")


@pytest.mark.parametrize("settings", [{"by": "6:00"}, {"by": "24:00"}, {"by": "06:00", "tz": "Mars"}])
def test_a_clock_that_is_none_is_a_mistake_of_the_configuration(tmp_path, settings):
    with pytest.raises(ConfigError):
        judged(tmp_path, scored(), **settings)


def test_it_runs_from_a_configuration_with_its_inputs_bound(tmp_path):
    from agent.config import load

    write(tmp_path, "sqlite", scored())
    given(tmp_path, 40)
    (tmp_path / "watchkeeper.yaml").write_text(
        "services:\n  nightly:\n    targets:\n"
        "      live: {url: 'sqlite:log.sqlite', time: {column: scored_at, tz: UTC}, id: id, version: version}\n"
        "      inputs: {url: 'csv:in/log.csv', time: {column: at, tz: UTC}}\n"
        "    watches:\n      - {check: batch.completed, every: 15m, window: 1d, with: {by: '06:00', tolerance: 1}}\n"
    )
    service = load(tmp_path / "watchkeeper.yaml").services["nightly"]
    (watch,) = service.watches
    end = DAY + timedelta(hours=7)
    job = {"check": watch.check, "locators": service.targets, "parameters": watch.parameters, "window": Window(end - timedelta(days=1), end)}
    assert perform(job | {"now": end}).good
    assert isinstance(service.targets["inputs"], Locator)
