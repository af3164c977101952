"""Slices of quality.estimated and quality.calibration on real tables: which are named, which are left alone, and which are too small."""

import json

import numpy as np
import pytest
from scipy import stats as oracle

from agent import Status, Window
from agent.errors import DataError
from checks import _estimate, _metrics
from checks._sample import Sample
from checks.quality import accuracy, calibration, estimated
from tests.labelled import HOUR, START, hours, logged, table, window

NOW = Window(START, START + HOUR)
GRID = np.arange(1, 100) / 100


def drawn(n, random, unsure=False):
    """Answers of a calibrated model with their truth and scores; an unsure one is right 57 or 58 times in a hundred."""
    score = random.uniform(0.35, 0.65, n) if unsure is True else np.where(unsure, random.uniform(0.35, 0.65, n), random.beta(1, 2, n))
    return {"prediction": (score > 0.5).astype(int), "label": (random.random(n) < score).astype(int), "score": score}


def reference(folder, random, groups, n=6000, **more):
    rows = drawn(n, random, unsure=random.random(n) < 0.3)
    return table(folder, "reference", {}, **rows | {"group": random.choice(groups, n)} | more)


def live(folder, rows, group, **more):
    n = len(group)
    return logged(folder, hours(1, per_hour=n), rows["prediction"], rows["label"], score=rows["score"], more={"group": group} | more)


# Estimated


def test_an_estimate_fails_for_the_one_slice_that_is_surely_bad_and_names_it(tmp_path):
    random = np.random.default_rng(4)
    group = random.choice(["de", "fr", "nl", "é ä"], 3000, p=[0.6, 0.15, 0.23, 0.02])
    rows = drawn(3000, random, unsure=group == "fr")
    table_live, labels = live(tmp_path, rows, group)
    yard = reference(tmp_path, random, ["de", "fr", "nl", "é ä"])
    assert estimated(table_live, yard, NOW, label="label", at_least=0.66).good
    verdict = estimated(table_live, yard, NOW, label="label", at_least=0.66, slices=["group"])
    assert verdict.status is Status.FAIL and "; in group=fr 0.5" in verdict.reason and "group=de" not in verdict.reason
    assert "too small to judge: group=é ä" in verdict.reason and verdict.reason.endswith("concept drift is invisible to it")
    parts = {name: part for name, part in verdict.parts.items() if name.startswith("slice.")}
    assert next(iter(parts)) == "slice.group=fr" and set(parts) == {"slice.group=de", "slice.group=fr", "slice.group=nl"}
    for name, part in parts.items():
        mine = group == name.removeprefix("slice.group=")
        assert part.n == mine.sum() and part.interval[0] <= (rows["prediction"] == rows["label"])[mine].mean() <= part.interval[1]
    told = json.loads(verdict.data["estimated.json"])
    assert [one["name"] for one in told["slices"] if one["failed"]] == ["group=fr"] and len(told["not_judged"]) == 1
    assert accuracy(table_live, labels, window(0), at_least=0.66, slices=["group"]).status is Status.FAIL


def test_slices_exactly_at_the_limit_fail_no_estimate_more_often_than_holm_allows(tmp_path):
    random, runs, failed, limit = np.random.default_rng(5), 20, 0, float(np.maximum(GRID, 1 - GRID).mean())

    def rows(n):
        score = random.choice(GRID, n)
        return {"prediction": (score > 0.5).astype(int), "label": (random.random(n) < score).astype(int), "score": score}

    for _ in range(runs):
        yard = table(tmp_path, "reference", {}, **rows(1000), group=random.choice(list("abcd"), 1000))
        now, _ = live(tmp_path, rows(1000), random.choice(list("abcd"), 1000))
        failed += estimated(now, yard, NOW, label="label", at_least=limit, slices=["group"]).status is Status.FAIL
    assert failed <= oracle.binom.ppf(1 - 1e-4, runs, 0.05)  # 2.5 % for the whole, 2.5 % for the slices together


def test_a_slice_is_estimated_by_its_own_part_of_the_reference(tmp_path):
    random = np.random.default_rng(6)

    def rows(n):
        group, one = random.choice(["a", "b"], n), drawn(n, random)
        chance = np.where(group == "b", 0.4 + 0.2 * one["score"], one["score"])  # those of b are far too sure of themselves
        return one | {"label": (random.random(n) < chance).astype(int)}, group, np.where(one["prediction"] == 1, chance, 1 - chance)

    told, group, _ = rows(8000)
    yard = table(tmp_path, "reference", {}, **told, group=group)
    told, group, right = rows(2000)
    now, _ = live(tmp_path, told, group)
    verdict = estimated(now, yard, NOW, label="label", at_least=0.62, slices=["group"])
    assert verdict.status is Status.FAIL and "; in group=b 0.5" in verdict.reason
    for name in "ab":
        part = verdict.parts[f"slice.group={name}"]
        assert part.interval[0] <= right[group == name].mean() <= part.interval[1]
    assert estimated(now, yard, NOW, label="label", worse_by=0.1, slices=["group"]).good


def test_the_realised_accuracy_lies_within_the_stated_error_though_the_reference_of_a_slice_is_small():
    random, runs, inside = np.random.default_rng(16), 80, 0

    def some(n):
        rows = drawn(n, random)
        return Sample("binary", rows["label"], rows["prediction"], np.ones(n), ("0", "1"), 1, rows["score"], at=np.arange(n))

    for _ in range(runs):
        now = some(150)
        found = _estimate.expected("accuracy", now, some(150))
        inside += found.low <= _metrics.point("accuracy", now) <= found.high
    assert inside >= oracle.binom.ppf(1e-3, runs, 0.95)


def test_a_slice_that_the_reference_hardly_has_is_not_judged_and_a_column_it_lacks_is_an_error(tmp_path):
    random = np.random.default_rng(7)
    group = random.choice(["de", "fr"], 1000)
    now, _ = live(tmp_path, drawn(1000, random, unsure=group == "fr"), group)
    sparse = np.r_[np.repeat("de", 5950), np.repeat("fr", 50)]
    yard = table(tmp_path, "reference", {}, **drawn(6000, random), group=sparse)
    verdict = estimated(now, yard, NOW, label="label", at_least=0.63, slices=["group"])
    assert "too small to judge: group=fr (50 of the reference)" in verdict.reason and "slice.group=de" in verdict.parts
    assert (
        "group=fr (0 of the reference)"
        in (
            estimated(
                now, table(tmp_path, "reference", {}, **drawn(500, random), group=["de"] * 500), NOW, label="label", at_least=0.1, slices=["group"]
            )
        ).reason
    )
    with pytest.raises(DataError, match="the cuts of 'score' must rise"):
        estimated(now, yard, NOW, label="label", at_least=0.1, slices=[{"score": [0.5, float("nan")]}])
    with pytest.raises(DataError, match="slices: the reference has no column 'group'"):
        estimated(now, table(tmp_path, "reference", {}, **drawn(500, random)), NOW, label="label", at_least=0.1, slices=["group"])


def test_cuts_missing_values_and_values_that_are_not_common_make_slices_as_they_do_with_labels(tmp_path):
    random = np.random.default_rng(8)
    age, rare = random.integers(18, 90, 3000).astype(float), [f"v{place}" for place in range(30)]
    age[:300] = np.nan
    now, labels = live(tmp_path, drawn(3000, random), random.choice(rare, 3000), age=age)
    yard = reference(tmp_path, random, rare[::-1], age=random.integers(18, 90, 6000).astype(float))
    verdict = estimated(now, yard, NOW, label="label", at_least=0.3, slices=["group", {"age": [30, 60]}], rows_at_least=50)
    known = accuracy(now, labels, window(0), at_least=0.3, slices=["group", {"age": [30, 60]}], rows_at_least=50)
    assert set(known.parts) - set(verdict.parts) >= {"slice.age=(none)"} and "age=(none) (0 of the reference)" in verdict.reason
    mine = {name for name in verdict.parts if name.startswith("slice.")}
    assert len(mine) == 20 + 1 + 3 and mine == {name for name in known.parts if name.startswith("slice.")} - {"slice.age=(none)"}


def test_the_others_of_a_yardstick_are_the_values_that_are_uncommon_in_the_window(tmp_path):
    random = np.random.default_rng(9)
    names = [f"v{place:02}" for place in range(22)]
    common_now, common_then = (np.repeat(names, np.where(np.isin(names, some), 60, 120)) for some in (names[20:], names[:2]))
    table_live, labels = live(tmp_path, drawn(len(common_now), random), common_now)
    right = np.where(np.isin(common_then, names[20:]), 1, 0)  # in the reference the model was always right of the two
    yard = table(tmp_path, "reference", {}, prediction=right, label=np.ones(len(right), int), score=right * 1.0, group=common_then)
    verdict = accuracy(table_live, labels, window(0), yard, worse_by=0.0, slices=["group"], rows_at_least=50)
    assert verdict.parts["slice.group=(others)"].limit == 1.0 and verdict.parts["slice.group=v00"].limit == 0.0


@pytest.mark.parametrize("value", [None, "", float("nan")], ids=["null", "empty", "nan"])
def test_a_column_that_says_nothing_is_one_slice(tmp_path, value):
    random = np.random.default_rng(10)
    now, _ = live(tmp_path, drawn(300, random), np.zeros(300))
    now = table(tmp_path, "live", now.declared, at=hours(1, per_hour=300), **drawn(300, random), group=[value] * 300)
    yard = table(tmp_path, "reference", {}, **drawn(900, random), group=[value] * 900)
    slices = [{"group": [0.5]}] if value != value else ["group"]
    verdict = estimated(now, yard, NOW, label="label", at_least=0.3, slices=slices)
    assert verdict.good and [part.n for name, part in verdict.parts.items() if name.startswith("slice.")] == [300]


def test_losses_of_a_slice_are_learned_from_the_same_slice(tmp_path):
    random = np.random.default_rng(11)

    def rows(n):
        x, group = random.normal(0, 1, n), random.choice(["a", "b"], n, p=[0.8, 0.2])
        only = np.where(group == "b", np.nan, x)  # a feature that one slice has nowhere
        return {"x": x, "only": only, "prediction": 2 * x, "label": 2 * x + random.normal(0, np.where(group == "b", 3.0, 1.0)), "group": group}

    yard, told = table(tmp_path, "reference", {}, **rows(3000)), rows(1000)
    now, _ = logged(
        tmp_path,
        hours(1, per_hour=1000),
        told["prediction"],
        told["label"],
        more={name: told[name] for name in ("x", "only", "group")},
        live={"features": ["x", "only"]},
    )
    verdict = estimated(now, yard, NOW, label="label", at_most=1.6, slices=["group"])
    assert verdict.status is Status.FAIL and "; in group=b 2." in verdict.reason
    for name, spread in (("a", 1.0), ("b", 3.0)):
        part = verdict.parts[f"slice.group={name}"]
        assert part.interval[0] <= spread * np.sqrt(2 / np.pi) <= part.interval[1]  # the mean size of a normal error


def test_rows_without_a_score_do_not_make_a_slice_or_a_window_large_enough(tmp_path):
    random = np.random.default_rng(12)
    rows, group = drawn(600, random), np.repeat(["a", "b"], 300)
    rows["score"] = np.where(np.arange(600) < 550, rows["score"], np.nan)
    rows["score"][50:300] = np.nan
    now, _ = live(tmp_path, rows, group)
    yard = reference(tmp_path, random, ["a", "b"])
    verdict = estimated(now, yard, NOW, label="label", at_least=0.3, slices=["group"])
    assert "too small to judge: group=a (50)" in verdict.reason and verdict.parts["slice.group=b"].n == 250
    few = estimated(now, yard, NOW, label="label", at_least=0.3, rows_at_least=400)
    assert few.status is Status.NODATA and few.reason.startswith("300 answers with scores in the window and 6000 labelled rows with scores")


# Calibration


def bent(n, random, by):
    """Scores that are `by` too high, everywhere."""
    score = random.uniform(0.2, 0.8, n)
    return {"prediction": (score > 0.5).astype(int), "label": (random.random(n) < score - by).astype(int), "score": score}


def test_the_one_slice_whose_probabilities_do_not_come_true_is_named(tmp_path):
    random = np.random.default_rng(13)
    group = random.choice(["de", "fr", "nl"], 4000, p=[0.75, 0.2, 0.05])
    now, labels = live(tmp_path, bent(4000, random, np.where(group == "fr", 0.18, 0.0)), group)
    assert calibration(now, labels, window(0)).status is not Status.FAIL
    verdict = calibration(now, labels, window(0), slices=["group"])
    assert verdict.status is Status.FAIL and "; in group=fr 0.1" in verdict.reason and "too small to judge: group=nl" in verdict.reason
    low, high = verdict.parts["slice.group=fr"].interval
    assert low > 0.05 and low <= 0.18 <= high and verdict.parts["slice.group=de"].interval[0] < 0.05
    told = json.loads(verdict.data["reliability.json"])
    assert [one["name"] for one in told["slices"] if one["failed"]] == ["group=fr"]


def test_slices_whose_error_is_exactly_the_limit_fail_no_more_often_than_holm_allows(tmp_path):
    random, runs, failed = np.random.default_rng(14), 25, 0
    for _ in range(runs):
        now, labels = live(tmp_path, bent(2400, random, 0.05), random.choice(list("abcd"), 2400))
        failed += calibration(now, labels, window(0), slices=["group"]).status is Status.FAIL
    assert failed <= oracle.binom.ppf(1 - 1e-4, runs, 0.05)


def test_a_limit_at_the_end_of_what_is_possible_is_not_surely_passed_by_an_interval_that_ends_there(tmp_path):
    random = np.random.default_rng(15)
    rows = drawn(400, random) | {"score": np.ones(400), "prediction": np.ones(400, int), "label": (np.arange(400) > 0).astype(int)}
    now, _ = live(tmp_path, rows, np.repeat(["a", "b"], 200))
    yard = table(tmp_path, "reference", {}, **rows, group=np.repeat(["a", "b"], 200))
    assert estimated(now, yard, NOW, label="label", at_least=1.0, slices=["group"]).status is Status.WARN
