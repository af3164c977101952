"""The pictures of drift.compare: well-formed, small, made of counts alone, and looked at in a real browser."""

import json
import math
import re
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import _page, _picture
from checks.drift import compare
from tests.test_drift import pair, rows

HOSTILE = "</svg><script>alert('x')</script>\"&\x00\x1b[2J\ud800" + "\N{RIGHT-TO-LEFT OVERRIDE}" * 3 + "x" * 500
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def ordered(found):
    return np.sort(np.asarray(found, dtype=float))


def drawn(shape, title="a column", said="moved"):
    return _picture.alone(_picture.column(title, said, shape))


@settings(max_examples=60, deadline=None)
@given(*(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30) for _ in range(2)))
def test_every_value_is_in_one_cell_and_the_picture_is_well_formed(one, other):
    shape = _picture.steps(ordered(one), ordered(other))
    if shape:
        assert (sum(shape.live), sum(shape.reference)) == (len(one), len(other))
        assert len(shape.live) == len(shape.edges) - 1
        assert list(shape.edges) == sorted(shape.edges)
    numbers = re.findall(r"-?\d+\.?\d*", " ".join(node.get("d", "") for node in ElementTree.fromstring(drawn(shape)).iter()))
    assert all(-1 <= float(number) <= _picture.WIDE for number in numbers)


def test_whole_numbers_fall_in_the_middle_of_their_cells():
    shape = _picture.steps(ordered([1, 2, 3, 3]), ordered([2] * 10))
    assert (shape.edges, shape.live, shape.reference) == ((0.5, 1.5, 2.5, 3.5), (1, 1, 2), (0, 10, 0))
    wide = _picture.steps(ordered(range(1000)), ordered(range(1000)))
    assert len(wide.live) <= _picture.CELLS
    assert len(set(wide.live[1:-2])) == 1, "no cell holds one whole number more than its neighbour"


def test_hostile_names_are_text_and_are_cut():
    svg = drawn(_picture.bars({HOSTILE: 50, "b": 50}, {HOSTILE: 10, "b": 90}), HOSTILE, HOSTILE[:60])
    assert "<script" not in svg
    assert all(len(text) <= 60 for text in texts(svg))
    assert texts(svg)[0].startswith("</svg><script>alert('x')")
    assert all(character.isprintable() for text in texts(svg) for character in text)
    ElementTree.fromstring(_picture.path([1.0], 2.0, HOSTILE, HOSTILE, labels=(HOSTILE, HOSTILE)))


def test_a_category_of_few_rows_has_no_name_in_a_picture():
    shape = _picture.bars({"common": 90, "Ada Lovelace": 2}, {"common": 90, "Ada Lovelace": 2, "Alan Turing": 1})
    assert shape == _picture.Shape((90, 2), (90, 3), names=("common", "(2 others)"))


def test_only_what_drifted_is_kept_with_a_finding_and_a_page_has_all(tmp_path):
    rng = np.random.default_rng(3)
    live, reference = pair(tmp_path, rows(x=lambda: float(rng.normal(2)), y=lambda: None if rng.random() < 0.3 else 1.0), rows(900, seed=2))
    verdict = compare(live, reference, draw_all=True)
    assert [text for text in texts(verdict.data["compare.svg"]) if text in ("x", "y", "city", "y.nulls")] == ["x", "y", "y.nulls"]
    page = verdict.data["compare.html"].decode()
    assert page.count("<svg ") == 4
    assert {"compare.svg", "compare.html"}.isdisjoint(compare(reference, reference).data)


def test_sixty_columns_with_names_that_hurt_are_a_page_below_200_kB(tmp_path):
    rng = np.random.default_rng(1)

    def table(count, shift):
        columns = {f"{HOSTILE[:70].replace(chr(0), '').replace(chr(0xD800), '')}{j}": rng.normal(shift, 1, count) for j in range(50)}
        columns |= {f"c{j}": rng.choice([f"<b>{name}" * 9 for name in range(40)], count) for j in range(10)}
        return [dict(zip(columns, (value.item() for value in row), strict=True)) for row in zip(*columns.values(), strict=True)]

    verdict = compare(*pair(tmp_path, table(300, 1.0), table(400, 0.0)), describe=True, draw_all=True)
    page = verdict.data["compare.html"]
    assert len(json.loads(verdict.data["compare.json"])["comparisons"]) == 60
    assert page.count(b"<svg ") == 60
    assert len(page) <= 200_000
    assert len(verdict.data["compare.svg"]) < 40_000
    assert b"<script" not in page and b"<b><" not in page
    for svg in re.findall(r"<svg .*?</svg>", page.decode(), re.DOTALL):
        ElementTree.fromstring(svg)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [3.0], [1.0, 10.0, 1e6], [0.0, -1.0, math.nan, math.inf], [5.0, 5.0]])
def test_a_path_is_drawn_whatever_its_values(values, log):
    svg = _picture.path(values, 5.0, "e-value", "one alarm in 90 days", log, ("Monday", "Tuesday"))
    assert "limit 5" in texts(svg) and "Monday" in texts(svg)
    assert "nan" not in svg and "inf" not in svg


def test_a_log_scale_takes_equal_factors_for_equal_steps():
    svg = _picture.path([1.0, 10.0, 100.0], 1000.0, "e-value", log=True)
    line = next(node.get("d") for node in ElementTree.fromstring(svg).iter(f"{SVG}path") if node.get("class") == "l")
    heights = [float(point.split()[1]) for point in line.removeprefix("M").split("L")]
    assert heights[0] == _picture.BOTTOM
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_the_page_is_shown_by_a_real_browser_with_every_column(tmp_path, chromium):
    page = compare(*pair(tmp_path, rows(), rows(900, seed=2)), draw_all=True).data["compare.html"]
    (tmp_path / "page.html").write_bytes(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([chromium, *flags, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=60)
    assert shown.stdout.count("<svg ") == 3, shown.stderr[-500:]
    assert "no column" not in shown.stdout
    assert "3 comparisons within their limits" in shown.stdout


def test_a_page_needs_nothing_else():
    page = _page.page("ok", "calm", {"comparisons": [], "not_compared": [{"name": "<i>", "why": "gone"}]}, {})
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "&lt;i&gt;: gone" in page
