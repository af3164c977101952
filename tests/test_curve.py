"""The picture of a reading over time: well-formed whatever it is given, with the limit and what happened where they belong."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.curve import BOTTOM, LEFT, POINTS, RIGHT, TOP, Mark, Point, draw

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def point(minute: float, mean: float, low: float | None = None, high: float | None = None) -> Point:
    return Point(NOW + timedelta(minutes=minute), mean, mean if low is None else low, mean if high is None else high)


def mark(minute: float, what: str) -> Mark:
    return Mark(NOW + timedelta(minutes=minute), what)


def line(picture: str) -> list[tuple[float, float]]:
    found = re.search(r'<polyline class="l" points="([^"]*)"', picture)
    assert found
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found[1].split())]


def test_a_reading_stands_until_the_next_look():
    (a, b, c, *_) = line(draw([point(0, 1.0), point(10, 3.0)], None, [], "latency"))
    assert a[1] == b[1] and b[0] == c[0] and c[1] < b[1]


def test_the_limit_stands_where_a_reading_of_that_size_would():
    picture = draw([point(0, 1.0), point(1, 5.0)], 5.0, [], "latency", "s")
    limit = re.search(r'class="x" [^>]*y1="([0-9.]+)"', picture)
    assert limit
    assert float(limit[1]) == line(picture)[-1][1]
    assert "limit 5" in picture and "latency (s)" in picture


def test_marks_are_numbered_in_order_and_those_too_near_to_tell_apart_share_a_number():
    picture = draw([point(0, 1.0), point(60, 2.0)], None, [mark(0, "one"), mark(0.1, "two"), mark(59, "three")], "x")
    assert re.findall(r'<text class="n c"[^>]*>([^<]+)<', picture) == ["1-2", "3"]
    assert [word in picture for word in ("12:00:00Z  one", "12:00:06Z  two", "12:59:00Z  three")] == [True] * 3


def test_a_band_is_drawn_where_a_minute_held_several_readings():
    assert "<polygon" in draw([point(0, 1, 0, 2), point(1, 1, 1, 1)], None, [], "x")
    assert "<polygon" not in draw([point(0, 1), point(1, 2)], None, [], "x")


def test_thousands_of_points_are_joined_and_keep_their_extremes():
    picture = draw([point(n, 1000.0 if n == 777 else 1.0) for n in range(5000)], None, [], "x")
    assert len(line(picture)) <= 2 * POINTS
    assert ">1000<" in picture and len(picture) < 60_000


@pytest.mark.parametrize("points", [[], [point(0, math.nan)], [point(0, math.inf)], [point(0, 1.0, -math.inf)]])
def test_nothing_finite_makes_no_picture(points):
    assert draw(points, 1.0, [mark(0, "x")], "x") == ""


def test_what_a_target_said_cannot_become_markup():
    picture = draw([point(0, 1.0)], math.nan, [mark(0, "<script>\x00\x1b[31m & 'x' \"y\"")], "<b>")
    assert "<script" not in picture and "\x1b" not in picture and "&lt;script&gt;" in picture
    ElementTree.fromstring(picture)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), FINITE, FINITE, FINITE), min_size=1, max_size=8),
    st.none() | st.floats(),
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.text(max_size=150)), max_size=4),
    st.text(max_size=20),
)
def test_whatever_it_is_given_it_is_well_formed_and_inside_its_frame(values, limit, marks, title):
    points = [point(minute, sorted(three)[1], min(three), max(three)) for minute, *three in values]
    picture = draw(points, limit, sorted((mark(*one) for one in marks), key=lambda m: m.at), title)
    ElementTree.fromstring(picture)
    assert "nan" not in re.sub(r">[^<]*<", "><", picture).replace(title, "")
    for x, y in line(picture):
        assert LEFT <= x <= RIGHT and TOP - 1 <= y <= BOTTOM + 1
