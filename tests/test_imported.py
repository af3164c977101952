"""Drift reports of other tools: real files by Evidently 0.7.23 and whylogs 1.6.4 (docs/checks/imported.md says how), and damaged ones."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import Locator, Reports, Window
from agent.errors import ConfigError, DataError
from agent.perform import perform
from agent.targets import connect
from checks import _reports
from checks.imported import evidently, whylogs
from tests.conftest import HOUSE

REAL = HOUSE / "tests" / "data" / "reports"
NOW = datetime(2026, 11, 26, 22, tzinfo=UTC)
FORMS = ("evidently_0.7.23", "evidently_0.7.23_tests", "evidently_legacy_report", "evidently_legacy_tests")


def reports(folder: Path, *bodies, hours=1.0):
    """A folder of reports, written an hour apart, the last one `hours` ago."""
    for place, body in enumerate(reversed(bodies)):
        path = folder / f"drift-{len(bodies) - place}.json"
        path.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
        at = NOW.timestamp() - 3600 * (hours + place)
        os.utime(path, (at, at))
    return connect(Locator("fraud", "report", "json:drift-*.json", folder=str(folder)))


def real(name):
    return json.loads((REAL / f"{name}.json").read_text())


# Evidently


@pytest.mark.parametrize("form", FORMS)
def test_each_form_in_which_evidently_writes_says_the_same(tmp_path, form):
    verdict = evidently(reports(tmp_path, real(form)), NOW, share=0.5)
    assert verdict.status == "fail"
    assert (verdict.reading.observed, verdict.reading.limit, verdict.reading.n) == (0.5, 0.5, 4)
    assert verdict.reason.startswith("2 of 4 columns drifted: amount (K-S p_value 7.36e-32, limit 0.05), country (chi-square p_value 7.48e-85") or (
        form == "evidently_legacy_tests"  # which rounds its scores
    )
    assert {name: (part.limit, part.unit) for name, part in verdict.parts.items()} == {
        "amount": (0.05, "K-S p_value"),
        "country": (0.05, "chi-square p_value"),
        "age": (0.05, "K-S p_value"),
        "score": (0.05, "K-S p_value"),
    }
    assert verdict.parts["age"].observed == pytest.approx(0.4134860840, abs=1e-3)
    kept = json.loads(verdict.data["imported.json"])
    assert {one["name"]: one["drifted"] for one in kept["columns"]} == {"amount": True, "country": True, "age": False, "score": False}


def test_the_share_the_report_was_made_with_decides_unless_the_watch_says_otherwise(tmp_path):
    report = reports(tmp_path, real("evidently_0.7.23"))
    assert evidently(report, NOW).status == "fail"
    assert evidently(report, NOW, share=0.51).status == "ok"
    calmer = real("evidently_0.7.23")
    calmer["metrics"][0]["config"]["drift_share"] = 0.75
    verdict = evidently(reports(tmp_path, calmer), NOW)
    assert verdict.status == "ok" and verdict.reading.limit == 0.75 and verdict.reason.startswith("2 of 4 columns drifted: amount")
    assert evidently(reports(tmp_path, real("evidently_legacy_tests")), NOW).reading.limit == 0.3


def test_what_evidently_calls_drift_by_each_of_its_methods_is_called_so_here():
    """A report without tests says only scores and thresholds; one with tests says what Evidently made of the same scores."""
    both = real("evidently_0.7.23_methods")
    asked = {(one.name, one.how): one.drifted for one in _reports.evidently(both).columns}
    alone = {(one.name, one.how): one.drifted for one in _reports.evidently({**both, "tests": []}).columns}
    assert len(asked) == 40 and alone == asked and {True, False} == set(asked.values())
    assert {how for _, how in asked} == set(_reports.DISTANCES) | set(_reports.P_VALUES)


def test_a_column_tested_by_several_methods_is_a_part_for_each(tmp_path):
    verdict = evidently(reports(tmp_path, real("evidently_0.7.23_methods")), NOW)
    assert len(verdict.parts) == 40 and verdict.parts["moved (wasserstein)"].observed == 1.8722947016248395


def test_a_method_nobody_knows_is_not_guessed_at(tmp_path):
    body = real("evidently_0.7.23")
    body["metrics"][2]["config"]["method"] = "custom function 'mine'"
    verdict = evidently(reports(tmp_path, body), NOW, share=0.9)
    assert verdict.status == "warn" and "does not say whether age did" in verdict.reason and verdict.reading.n == 3


def test_a_score_that_is_no_number_is_no_call(tmp_path):
    text = (REAL / "evidently_0.7.23_tests.json").read_text().replace("0.41348608403425674", "NaN")
    verdict = evidently(reports(tmp_path, text.encode()), NOW, share=0.9)
    assert verdict.status == "warn" and verdict.parts["age"].observed is None


# whylogs


def test_the_scores_of_whylogs_keep_its_categories(tmp_path):
    verdict = whylogs(reports(tmp_path, real("whylogs_1.6.4")), NOW)
    assert verdict.status == "fail" and verdict.reason.startswith(
        "2 of 3 columns drifted: amount (ks p-value 3.42e-30, limit 0.05), country (chi-square"
    )
    assert verdict.parts["age"].observed == 0.4440650591425548
    assert whylogs(reports(tmp_path, real("whylogs_1.6.4")), NOW, share=0.7).status == "ok"


def test_possible_drift_is_a_warning_and_a_distance_stands_beside_its_threshold(tmp_path):
    verdict = whylogs(reports(tmp_path, real("whylogs_1.6.4_hellinger")), NOW)
    assert verdict.status == "warn" and verdict.reason.endswith("; perhaps amount")
    assert (verdict.parts["amount"].observed, verdict.parts["amount"].limit, verdict.parts["amount"].unit) == (0.15614049732516588, 0.4, "hellinger")


def test_scores_without_thresholds_are_no_data_for_whylogs_has_called_nothing(tmp_path):
    verdict = whylogs(reports(tmp_path, real("whylogs_1.6.4_plain")), NOW)
    assert verdict.status == "nodata" and len(verdict.parts) == 4


# Which report


def test_the_newest_report_counts(tmp_path):
    report = reports(tmp_path, real("evidently_legacy_tests"), real("evidently_0.7.23"))
    assert report.newest().name == "drift-2.json" and report.newest().written_at == NOW - timedelta(hours=1)
    assert isinstance(report, Reports)


def test_an_old_report_and_none_at_all_are_no_data(tmp_path):
    assert evidently(reports(tmp_path), NOW).reason == "no report yet"
    verdict = evidently(reports(tmp_path, real("evidently_0.7.23"), hours=25), NOW)
    assert verdict.status == "nodata" and verdict.reason == "drift-1.json is 1d1h old (limit 1d)"
    assert evidently(reports(tmp_path, real("evidently_0.7.23"), hours=25), NOW, freshness=timedelta(days=2)).status == "fail"


@pytest.mark.parametrize("check", [evidently, whylogs])
@pytest.mark.parametrize("body", [{}, [], None, 7, {"metrics": None}, {"metrics": [1, {}]}, {"metrics": [], "tests": [{"parameters": []}]}, "x"])
def test_json_that_is_no_report_is_an_error_that_says_what_to_write(tmp_path, check, body):
    with pytest.raises(DataError, match=r"drift-1.json is no drift report of .*: it holds no"):
        check(reports(tmp_path, body), NOW)


@pytest.mark.parametrize("damage", [b"", b"{", (REAL / "evidently_0.7.23.json").read_bytes()[:-9], b"\xff\xfe", b"[" * 200_000, b"<html>"])
def test_a_file_that_is_not_whole_is_an_error_and_never_no_drift(tmp_path, damage):
    with pytest.raises(DataError, match=r"drift-1.json is no JSON, or only a part of it"):
        evidently(reports(tmp_path, damage), NOW)


def test_a_file_that_holds_the_data_itself_is_refused_unread(tmp_path):
    with pytest.raises(DataError, match="larger than 8,388,608 bytes"):
        evidently(reports(tmp_path, b" " * (8 * 2**20 + 1)), NOW)


def test_of_thousands_of_columns_the_drifted_are_kept(tmp_path):
    one = real("evidently_0.7.23")["metrics"][1]
    many = [{**one, "id": str(n), "config": {**one["config"], "column": f"c{n}"}, "value": n / 3_000} for n in range(3_000)]
    verdict = evidently(reports(tmp_path, {"metrics": many, "tests": []}), NOW)
    assert verdict.status == "ok" and verdict.reason.startswith("151 of 3000 columns drifted: c0 (")
    assert len(verdict.parts) == 200 and list(verdict.parts)[150] == "c150"


@pytest.mark.parametrize("mess", [{"column": None}, {"threshold": "low"}, {"threshold": True}, {"method": 5}, {"column": "\ud800"}])
def test_a_report_somebody_edited_still_ends_as_a_finding(tmp_path, mess):
    body = real("evidently_0.7.23")
    body["metrics"][1]["config"] |= mess
    reports(tmp_path, body)
    at = Locator("fraud", "report", "json:drift-*.json", folder=str(tmp_path))
    verdict = perform({"check": "imported.evidently", "locators": {"report": at}, "window": Window(NOW, NOW), "now": NOW})
    assert verdict.status in ("fail", "warn")


def test_an_option_is_refused():
    with pytest.raises(ConfigError, match="no option"):
        connect(Locator("fraud", "report", "json:x", {"newest": True}))


def test_a_folder_of_that_name_is_no_report(tmp_path):
    shutil.copytree(REAL, tmp_path / "drift-1.json")
    assert evidently(connect(Locator("fraud", "report", "json:drift-*.json", folder=str(tmp_path))), NOW).status == "nodata"
