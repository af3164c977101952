"""`watchkeeper strategies` as people use it, and how one of them comes to be recommended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from runbooks._head_to_head import Run, interval, recommended
from tests.conftest import library
from tests.lessons import NETS, WIDTH, clouds, table
from tests.test_cli import wk


def runs(*shares: tuple[float, float], seconds: float = 1.0, before: float = 0.9) -> list[Run]:
    """A run for each pair of accuracies on new and on old rows."""
    return [Run(seed, {"train": new, "old": old}, {"old": before}, seconds) for seed, (new, old) in enumerate(shares)]


def test_the_best_on_average_over_the_tables_is_recommended_and_the_next_is_named() -> None:
    name, why = recommended({"naive": runs((1.0, 0.0)), "replay": runs((0.9, 0.8)), "ewc": runs((0.8, 0.5))}, 0.01)
    assert name == "replay" and "85.0% on average over the tables; next is ewc with 65.0%" in why


def test_a_cheaper_one_is_recommended_only_where_it_is_shown_to_lose_less_than_the_margin() -> None:
    best = runs(*[(0.95, 0.9 + 0.001 * seed) for seed in range(5)], seconds=3.0)
    close = runs(*[(0.95, 0.899 + 0.001 * seed) for seed in range(5)])
    loose = runs(*[(0.95, share) for share in (0.7, 1.0, 0.8, 1.0, 0.99)])
    assert recommended({"der++": best, "replay": close}, 0.01)[0] == "replay"
    assert "shown to lose less than 1 points beside der++" in recommended({"der++": best, "replay": close}, 0.01)[1]
    assert recommended({"der++": best, "replay": loose}, 0.01)[0] == "der++"
    assert recommended({"der++": best[:1], "replay": close[:1]}, 0.01)[0] == "der++", "one seed shows nothing"


def test_the_interval_over_seeds_is_student_s() -> None:
    values = [0.2, 0.5, 0.6, 0.4]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = interval(values)
    assert (found["low"], found["high"]) == pytest.approx((low, high)) and found["mean"] == pytest.approx(0.425)
    assert interval([0.5]) == {"mean": 0.5, "low": None, "high": None}


def test_what_went_is_told_of_the_old_rows_alone() -> None:
    assert runs((0.9, 0.3), before=0.8)[0].forgotten == pytest.approx(0.5)


# The command


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    table(tmp_path / "new.parquet", (2, 3), seed=2)
    x, y = clouds((0, 1), seed=1)
    lines = [",".join([*(f"x{place}" for place in range(WIDTH)), "y"]), *(",".join(map(str, [*row, label])) for row, label in zip(x, y, strict=True))]
    (tmp_path / "old.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


ASKED = ("strategies", "--factory", "nets:mlp", "--train", "new.parquet", "--old", "old.csv", "--label", "y")


def test_strategies_are_tried_on_files_of_any_kind_and_one_is_recommended(rows: Path) -> None:
    library("torch")
    words = ("--strategy", "naive", "--strategy", "replay", "--set", "replay.buffer=60", "--seeds", 2, "--epochs", 30, "--json")
    told = json.loads(wk(*ASKED, *words, folder=rows))
    by_name = {one["strategy"]: one for one in told["strategies"]}
    assert told["recommended"] == "replay" and by_name["replay"]["old"]["mean"] > by_name["naive"]["old"]["mean"]
    assert by_name["naive"]["forgotten"]["mean"] > by_name["replay"]["forgotten"]["mean"] and len(by_name["naive"]["runs"]) == 2
    assert all(run["seconds"] > 0 for one in told["strategies"] for run in one["runs"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategy", "replay", "--set", "ewc.strength=3"), "write STRATEGY.NAME=VALUE with one of replay"),
        (("--strategy", "genius"), "'genius' is not one of"),
        (("--train", "nowhere.parquet"), "there is no file nowhere.parquet"),
    ],
)
def test_what_cannot_be_tried_is_a_usage_error(rows: Path, words: tuple[str, ...], said: str) -> None:
    assert re.search(re.escape(said), " ".join(wk(*ASKED, *words, code=2, folder=rows).split()))


def test_a_net_that_is_not_there_is_said_by_the_program_and_told(rows: Path) -> None:
    library("torch")
    words = [word if word != "nets:mlp" else "nets:gone" for word in ASKED]
    assert "has no attribute 'gone'" in wk(*words, "--strategy", "naive", code=2, folder=rows)
