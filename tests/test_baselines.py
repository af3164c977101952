"""baselines.simple: real ONNX graphs on real rows; the interval is scipy's where it has one."""

from __future__ import annotations

import numpy as np
import pytest

from agent import Status
from agent.model import Locator
from agent.perform import perform
from tests.test_forgetting import CLASSES, WEIGHTS, linear, rows


def judged(candidate, table, champion=None, **more):
    options = {"features": [f"x{place}" for place in range(CLASSES)]}
    locators = {"candidate": Locator("fraud", "candidate", f"onnx:{candidate}", options), "guard": Locator("fraud", "guard", f"csv:{table}")}
    if champion is not None:
        locators["champion"] = Locator("fraud", "champion", f"onnx:{champion}", options)
    return perform({"check": "baselines.simple", "locators": locators, "parameters": {"label": "y", "features": options["features"], **more}})


def test_a_model_is_held_against_the_usual_label_and_its_predecessor(tmp_path):
    table, good, bad = rows(tmp_path, "guard", [0, 1, 2]), linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", np.roll(WEIGHTS, 1, axis=1))
    both = judged(good, table, linear(tmp_path, "3", 1.1 * WEIGHTS))
    assert both.status is Status.OK and len(both.parts) == 2 and "its predecessor" in both.reason
    assert judged(good, table).status is Status.WARN and "no predecessor is bound" in judged(good, table).reason
    assert judged(bad, table, good).status is Status.FAIL
    assert judged(good, table, rows_at_least=401).status is Status.NODATA


def test_the_gain_over_the_usual_label_is_counted_by_hand(tmp_path):
    import csv

    table = rows(tmp_path, "guard", [0, 1], noise=0.05)
    with table.open() as file:
        truth = [row["y"] for row in csv.DictReader(file)]
    usual = max(truth.count("0"), truth.count("1")) / len(truth)
    said = judged(linear(tmp_path, "1", WEIGHTS), table)
    assert said.reading.observed == pytest.approx(1 - usual) and said.reading.interval[0] > 0
    assert np.isfinite(said.reading.interval).all()
