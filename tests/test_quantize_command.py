"""`watchkeeper quantize`, as people type it: what it prints, what it keeps, and how it ends."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from agent.cli import main
from runbooks._pareto import pareto
from runbooks._quantize_page import page
from tests import graphs
from tests.conftest import HOUSE


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HOUSE))  # the program it starts is this house's, whichever is installed


def quantize(*words: object, json_: bool = False) -> Result:
    quick = ["--rounds", "24", "--batch", "1", "--speed", "0"]
    return CliRunner().invoke(main, ["quantize", *map(str, words), *quick, *(["--json"] if json_ else [])], catch_exceptions=False)


@pytest.fixture
def box(tmp_path: Path) -> Path:
    graphs.cnn(tmp_path / "model.onnx", 32)
    graphs.rows(tmp_path / "rows.parquet", 60, 64)
    return tmp_path


def test_the_best_is_kept_where_it_is_told_with_what_was_measured(box: Path) -> None:
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet", "--out", box / "smaller", "--html", box / "page.html")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("BETTER\n  static int8")
    assert "dynamic int8" in done.output and "not tried" in done.output and f"{box}/smaller/model.onnx is the best" in done.output
    assert sorted(path.name for path in (box / "smaller").iterdir()) == ["model.onnx", "pareto.svg", "quantize.html", "report.json"]
    onnx.checker.check_model(str(box / "smaller" / "model.onnx"))
    told = json.loads((box / "smaller" / "report.json").read_text())
    assert pareto(told) == (box / "smaller" / "pareto.svg").read_text() and page(told) == (box / "page.html").read_text()
    again = quantize(box / "model.onnx", "--rows", box / "rows.parquet", "--out", box / "smaller")
    assert again.exit_code == 2 and "holds a model.onnx already" in again.output


def test_without_a_folder_nothing_is_kept_and_json_says_all(box: Path) -> None:
    before = sorted(box.iterdir())
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet", "--compare", box / "rows.parquet", json_=True)
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["outcome"] == "better" and told["out"] is None and sorted(box.iterdir()) == before
    assert told["rows"] == {"calibration": 60, "compared": 60}


def test_none_that_is_better_ends_with_one(box: Path) -> None:
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet", "--largest", "0.01", "--out", box / "smaller")
    assert done.exit_code == 1 and done.output.startswith("NONE IS BETTER") and "larger: it keeps" in done.output
    assert list((box / "smaller").iterdir()) == []


def test_what_cannot_be_told_ends_with_three_and_the_next_move(box: Path) -> None:
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet", "--feature", "f0")
    assert done.exit_code == 3 and "COULD NOT TELL" in done.output and "name its columns with `features`" in done.output
    (box / "model.onnx").write_bytes(b"not a model")
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet", json_=True)
    assert done.exit_code == 3 and "is neither ONNX, safetensors nor a file of torch" in json.loads(done.stdout)["why"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gone.onnx", "--rows", "{box}/rows.parquet"], "there is no file gone.onnx"),
        (["{box}/model.onnx", "--rows", "gone.parquet"], "there is no file gone.parquet"),
        (["{box}/model.onnx"], "Missing option '--rows'"),
        (["{box}/model.onnx", "--rows", "{box}/rows.parquet", "--out", "{box}/rows.parquet"], "is a file"),
        (["{box}/model.onnx", "--rows", "{box}/rows.parquet", "--out", "/proc/nothing"], "cannot be written"),
    ],
)
def test_what_is_typed_wrong_is_a_usage_error_before_anything_is_measured(box: Path, words: list[str], expected: str) -> None:
    done = quantize(*(word.format(box=box) for word in words))
    assert done.exit_code == 2 and expected in done.output


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("raise SystemExit('no such luck')", "the program that quantizes ended with status 1; its last words: no such luck"),
        ("import os; os.kill(os.getpid(), 9)", "the program that quantizes was killed; memory ran out, most likely"),
    ],
)
def test_a_program_that_dies_is_told_with_its_last_words(box: Path, monkeypatch: pytest.MonkeyPatch, death: str, told: str) -> None:
    (box / "onnx.py").write_text(death)
    monkeypatch.setenv("PYTHONPATH", f"{box}:{HOUSE}")
    done = quantize(box / "model.onnx", "--rows", box / "rows.parquet")
    assert done.exit_code == 3 and told in done.output


# What people see


def told(**more: object) -> dict:
    """A report with one of each outcome."""

    def one(name: str, outcome: str, share: float, speed: float, kept: float) -> dict:
        quality = {
            "kind": "vectors",
            "kept": kept,
            "fidelity": 30.0,
            "cosine": [kept, kept],
            "worst": 0.1,
            "rows": 50,
            "before": None,
            "after": None,
            "lost": 0,
            "won": 0,
            "in_words": f"mean cosine {kept:.4f}",
        }
        times = {"p50": 0.002 / speed, "p99": 0.004 / speed, "ratio": [speed, speed * 0.9, speed * 1.1], "rounds": 400}
        return {
            "name": name,
            "tried": "because",
            "outcome": outcome,
            "why": "" if outcome == "chosen" else "a reason <b>",
            "size": int(share * 1e6),
            "share": share,
            "memory": None,
            "speed": {"1": times},
            "slowest": times["ratio"],
            "quality": quality,
        }

    return {
        "outcome": "better",
        "why": "dynamic <int8>",
        "chosen": "dynamic",
        "judged_by": "vectors",
        "champion": {"size": 1_000_000, "opset": 17, "operators": {"MatMul": 3, "<script>": 1}},
        "rows": {"calibration": 10, "compared": 50},
        "limits": {"least": 0.98, "largest": 0.6, "speed": 1.0},
        "machine": {"processor": "one", "threads": 1, "device": "cpu"},
        "variants": [
            one("as it is", "", 1.0, 1.0, 1.0),
            one("dynamic", "chosen", 0.25, 1.8, 0.993),
            one("static", "refused", 0.25, 0.5, 0.763),
            one("part", "good", 0.4, 1.5, 0.999),
            {"name": "four", "tried": "x", "outcome": "broken", "why": "it cannot be made"},
        ],
        "untried": {"float16": "a CPU gains nothing by it"},
        "layers": [{"name": "first", "operator": "MatMul", "decibels": 20.0}],
        **more,
    }


def test_the_picture_places_every_variant_by_size_and_by_what_it_loses() -> None:
    drawn = ET.fromstring(pareto(told()))
    dots = [one for one in drawn.iter("{http://www.w3.org/2000/svg}circle") if one.get("r") == "8"]
    by_size, by_loss = dots[:4], dots[4:]
    assert [one.get("class") for one in by_size] == [one.get("class") for one in by_loss] == ["plain", "chosen", "refused", "good"]
    across, along = ([float(one.get("cx", 0)) for one in side] for side in (by_size, by_loss))
    assert across[1] == across[2] < across[3] < across[0]
    assert along[0] < along[3] < along[1] < along[2]
    up = [float(one.get("cy", 0)) for one in by_size]
    assert up[1] < up[3] < up[0] < up[2] and up == [float(one.get("cy", 0)) for one in by_loss]


def test_nothing_of_a_model_is_markup_in_the_page() -> None:
    said = page(told())
    assert "<script>" not in said and "&lt;script&gt;" in said and "a reason &lt;b&gt;" in said and "dynamic &lt;int8&gt;" in said


def test_a_browser_draws_the_page(chromium: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page(told()))
    command = [str(chromium), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    seen = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=60)
    assert "What became of each" in seen.stdout and seen.stdout.count("<circle") == 12
