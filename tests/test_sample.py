"""Rows as they are, kept with the finding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import Locator
from agent.errors import ConfigError
from agent.targets import connect
from checks.sample import sample


def table(folder: Path, rows: list, **options):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return connect(Locator("fraud", "live", "jsonl:rows.jsonl", {"time": {"column": "at", "tz": "UTC"}, **options}, folder=str(folder)))


def test_the_newest_rows_are_kept_without_what_the_table_excludes(tmp_path):
    rows = [{"at": f"2026-11-01T00:00:{n:02}+00:00", "name": "é|\n", "x": n, "probe": n % 2} for n in range(10)]
    verdict = sample(table(tmp_path, rows, exclude=[{"column": "probe", "equals": 1}]), rows=3)
    kept = [json.loads(line) for line in verdict.data["rows.jsonl"].decode().splitlines()]
    assert verdict.status == "ok" and [row["x"] for row in kept] == [8, 6, 4] and kept[0]["name"] == "é|\n"


def test_no_rows_are_no_data_and_too_many_are_refused(tmp_path):
    one = {"at": "2026-11-01T00:00:00+00:00", "probe": 1}
    assert sample(table(tmp_path, [one], exclude=[{"column": "probe", "equals": 1}])).status == "nodata"
    for rows in (0, -1, 1001):
        with pytest.raises(ConfigError, match="between 1 and 1,000"):
            sample(table(tmp_path, [one]), rows=rows)
