"""data.expectations on results that Great Expectations 1.24.1 wrote (tests/data/expectations; docs/checks/data.md says how)."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import Reading, Status
from agent.errors import DataError
from checks.data import expectations

RESULTS = Path(__file__).parent / "data" / "expectations"
RAN = datetime(2026, 11, 26, 21, 17, 34, tzinfo=UTC)
NOW = RAN + timedelta(hours=1)


def changed(folder, change, name="bad.json"):
    body = json.loads((RESULTS / name).read_text())
    change(body)
    (folder / "changed.json").write_text(json.dumps(body))
    return str(folder / "changed.json")


def test_a_result_without_a_failure_is_ok_and_says_how_old_it_is():
    verdict = expectations(NOW, results=str(RESULTS / "good.json"))
    assert (verdict.status, verdict.reason) == (Status.OK, "all of 8 expectations passed, 1h1s ago")
    assert verdict.reading == Reading(0, 0, n=8, unit="expectations")


@pytest.mark.parametrize("name", ["bad.json", "checkpoint.json"])
def test_each_failed_expectation_is_a_part_with_its_unexpected_percent(tmp_path, name):
    path = shutil.copy(RESULTS / name, tmp_path)
    os.utime(path, (RAN.timestamp(), RAN.timestamp()))  # a checkpoint's text bears no time: its file does
    verdict = expectations(NOW, results=path)
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith(
        "5 of 8 expectations failed: amount.be_between (1 % of 200 unexpected); country.be_in_set (0.503 % of 200 unexpected)"
    )
    assert verdict.reason.endswith("; and 2 more")
    assert verdict.parts == {
        "amount.be_between": Reading(1.0, 0.0, n=200, unit="%"),
        "country.be_in_set": Reading(pytest.approx(100 / 199), 0.0, n=200, unit="%"),
        "country.not_be_null": Reading(0.5, 0.0, n=200, unit="%"),
        "user_id.be_unique": Reading(1.0, 0.0, n=200, unit="%"),
        "score.to_exist": Reading(None),
    }


def test_an_observed_value_stands_beside_the_bound_it_broke(tmp_path):
    def change(body):
        for one in body["results"]:
            if "mean" in one["expectation_config"]["type"] or "row_count" in one["expectation_config"]["type"]:
                one["success"] = False
                one["result"]["observed_value"] /= 10

    parts = expectations(NOW, results=changed(tmp_path, change)).parts
    assert (parts["amount.mean_to_be_between"].observed, parts["amount.mean_to_be_between"].limit) == (2.441, 20)
    assert (parts["table.row_count_to_be_between"].observed, parts["table.row_count_to_be_between"].limit) == (20, 100)


def test_values_that_great_expectations_quotes_are_not_passed_on(tmp_path):
    def change(body):
        for one in body["results"]:
            one["result"]["partial_unexpected_list"] = ["ada@example.com"]

    verdict = expectations(NOW, results=changed(tmp_path, change))
    assert "ada@" not in verdict.reason + str(verdict.parts) + verdict.data["expectations.json"].decode()


def test_what_raised_could_not_see_and_is_no_failure():
    verdict = expectations(NOW, results=str(RESULTS / "raised.json"))
    assert verdict.status is Status.ERROR
    assert verdict.reason == "none of 8 expectations failed; 2 expectations raised: amount.be_between, amount.mean_to_be_between"


def test_a_failure_beside_what_raised_is_a_failure(tmp_path):
    def change(body):
        body["results"][-1]["success"] = False

    verdict = expectations(NOW, results=changed(tmp_path, change, "raised.json"))
    assert verdict.status is Status.FAIL
    assert "2 expectations raised" in verdict.reason


def test_failures_that_are_only_warnings_warn(tmp_path):
    def change(body):
        for one in body["results"]:
            one["expectation_config"]["severity"] = "warning"

    assert expectations(NOW, results=changed(tmp_path, change)).status is Status.WARN


def test_a_share_that_is_allowed_is_the_limit(tmp_path):
    def change(body):
        body["results"][0]["expectation_config"]["kwargs"]["mostly"] = 0.995

    assert expectations(NOW, results=changed(tmp_path, change)).parts["amount.be_between"].limit == pytest.approx(0.5)


def test_an_old_result_is_no_data_or_a_failure_as_it_is_set():
    later = RAN + timedelta(days=3)
    verdict = expectations(later, results=str(RESULTS / "bad.json"))
    assert verdict.status is Status.NODATA
    assert verdict.reason == "the newest result is 3d old (limit 1d); see why the checkpoint does not run"
    assert expectations(later, results=str(RESULTS / "good.json"), stale="fail").status is Status.FAIL
    assert expectations(later, results=str(RESULTS / "good.json"), freshness=timedelta(days=4)).good


def test_a_result_from_the_future_cannot_be_trusted_to_grow_old():
    verdict = expectations(RAN - timedelta(hours=2), results=str(RESULTS / "good.json"))
    assert verdict.status is Status.ERROR
    assert "in the future" in verdict.reason
    assert expectations(RAN - timedelta(minutes=1), results=str(RESULTS / "good.json")).good


def test_of_a_folder_the_file_written_last_counts(tmp_path):
    for place, name in enumerate(("good.json", "bad.json")):
        (tmp_path / f"run{place}").mkdir()
        path = shutil.copy(RESULTS / name, tmp_path / f"run{place}" / "predictions.json")
        os.utime(path, (RAN.timestamp() + place, RAN.timestamp() + place))
    assert expectations(NOW, results=str(tmp_path)).status is Status.FAIL
    os.utime(tmp_path / "run0" / "predictions.json", (NOW.timestamp(), NOW.timestamp()))
    assert expectations(NOW, results=str(tmp_path)).good


def test_two_expectations_of_one_kind_on_one_column_are_told_apart(tmp_path):
    verdict = expectations(NOW, results=changed(tmp_path, lambda body: body["results"].append(body["results"][0])))
    assert {"amount.be_between", "amount.be_between#2"} <= set(verdict.parts)


def test_no_expectation_at_all_is_no_data(tmp_path):
    assert expectations(NOW, results=changed(tmp_path, lambda body: body["results"].clear())).status is Status.NODATA


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "is not a validation result"),
        ("{}", "it has no 'results'"),
        ('{"results": 3}', "is not a validation result"),
        ('{"results": [{"expectation_type": "x", "success": true}]}', "it has no 'expectation_config'"),
        ('{"results": [{"expectation_config": {"type": "x", "kwargs": {}}, "success": "yes"}]}', "neither true nor false"),
        ('{"run_results": {}, "success": true}', "it has no 'results'"),
        ('{"results": [], "meta": {"run_id": {"run_time": "yesterday"}}}', "is not a validation result"),
        ('{"results": [{"expectation_config": {"type": 7, "kwargs": {}}, "success": true}]}', "is not a validation result"),
    ],
)
def test_what_is_no_result_is_an_error_that_says_what_was_expected(tmp_path, text, says):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(DataError, match=says):
        expectations(NOW, results=str(tmp_path))


def test_a_missing_file_and_an_empty_folder_are_errors(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        expectations(NOW, results=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"holds no \*.json"):
        expectations(NOW, results=str(tmp_path))
    (tmp_path / "huge.json").write_bytes(b" " * (33 << 20))
    with pytest.raises(DataError, match="too many for a result"):
        expectations(NOW, results=str(tmp_path))
