"""Counts made by an engine are those made here: for any table, any window and any question, and whatever a name or a value tries."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Ask
from agent.targets import _edges, _push, _times
from agent.targets._dialect import BIGQUERY, DUCKDB, POSTGRES, SPARK, TRINO
from agent.targets._duck import OFFLINE, CountingDuck
from agent.targets._tables import Rows
from tests.logs import START, log_rows, opened, write

NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 7.0, 7.5, math.nan, math.inf, -math.inf, 2.0**53, 1e22, 5e-324]), st.floats())
WORDS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ä", "7", "😀", "A", "'; DROP TABLE t; --", "null"]), st.text(max_size=3))
WHOLE = st.one_of(st.none(), st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
SPRING, AUTUMN = (st.datetimes(datetime(2026, month, day), datetime(2026, month, day + 2)) for month, day in ((3, 28), (10, 24)))
TIMES = st.one_of(st.none(), SPRING, AUTUMN)
ODD_KEYS = ["7", "7.5", "true", "a", "ä", "0", "inf", "1e+22", "'", "\\", "\0", "\ud800"]
RULES = [
    {"column": "word", "prefix": "a"},
    {"column": "word", "in": ["b", "'", "7"]},
    {"column": "number", "equals": 7},
    {"column": "flag", "equals": 1},
]


def lists(values, count):
    return st.lists(values, min_size=count, max_size=count)


@st.composite
def tables(draw):
    """Rows of every kind of column that an engine counts."""
    count = draw(st.integers(0, 12))
    zoned = draw(lists(TIMES, count))
    return {
        "number": pa.array(draw(lists(NUMBERS, count)), pa.float64()),
        "integer": pa.array(draw(lists(WHOLE, count)), pa.int64()),
        "word": pa.array([encodable(word) for word in draw(lists(WORDS, count))], pa.string()),
        "flag": pa.array(draw(lists(st.one_of(st.none(), st.booleans()), count)), pa.bool_()),
        "zoned": pa.array([at and at.replace(tzinfo=UTC) for at in zoned], pa.timestamp("us", tz="UTC")),
        "naive": pa.array(zoned, pa.timestamp("us")),
        "epoch": pa.array([at and at.replace(tzinfo=UTC).timestamp() for at in zoned], pa.float64()),
        "list": pa.array(draw(lists(st.one_of(st.none(), st.lists(NUMBERS, max_size=4)), count)), pa.list_(pa.float64())),
    }


def encodable(word):
    return word if word is None else word.encode("utf-8", "replace").decode().replace("\0", "0")


@st.composite
def asks(draw):
    """Cuts, keys and tops of every column."""
    cuts = (
        st.lists(st.one_of(st.sampled_from([-1.0, 0.0, 7.0, math.inf]), st.floats(allow_nan=False)), max_size=4, unique=True).map(sorted).map(tuple)
    )
    keys = st.lists(
        st.one_of(st.sampled_from(["7", "7.5", "true", "a", "ä", "0", "inf", "1e+22", "'", "\\", "\0", "\ud800"]), st.text(max_size=2)), max_size=3
    )
    keyed = st.one_of(st.tuples(keys.map(lambda some: tuple(dict.fromkeys(some))), st.just(0)), st.tuples(st.just(()), st.integers(0, 4)))
    numbers = ("number", "integer", "zoned", "naive", "epoch", "p0", "list.length")
    found = [Ask(name, draw(cuts), *draw(keyed)) for name in numbers] + [Ask(name, (), *draw(keyed)) for name in ("word", "flag")]
    return [*found, Ask("list")]


@st.composite
def declared(draw):
    """A time of any form, in a zone with two clock changes inside TIMES, and excludes."""
    forms = [{"column": "zoned"}, {"column": "naive", "tz": "UTC"}, {"column": "naive", "tz": "Europe/Berlin"}, {"column": "epoch", "unit": "s"}]
    return {
        "time": draw(st.sampled_from(forms)),
        "features": {"json": "list", "size": 2},
        "exclude": draw(st.lists(st.sampled_from(RULES), max_size=2)),
    }


@st.composite
def windows(draw):
    """None for all rows, or a stretch between two instants."""
    times = sorted(draw(st.tuples(*[st.datetimes(datetime(2026, 3, 28), datetime(2026, 10, 26), timezones=st.just(UTC))] * 2)))
    return draw(st.sampled_from([None, tuple(times), (START, START + timedelta(hours=2)), (START, datetime.max.replace(tzinfo=UTC))]))


def same(pushed, streamed):
    """The same Tally, but for the order in which floats were added."""
    for name, tally in pushed.items():
        other = streamed[name]
        assert (tally.rows, tally.nulls, tally.low, tally.high, tally.counts) == (other.rows, other.nulls, other.low, other.high, other.counts), name
        assert dict(tally.by_key) == dict(other.by_key), name
        assert near(tally, other), name


def near(one, two):
    """Sums differ by the order of the summands, which is no promise of any engine; far enough out they are not finite either way."""
    if one.total is None or two.total is None:
        return one.total is two.total is None
    if not (math.isfinite(one.total) and math.isfinite(two.total)):
        return math.isinf(max(abs(two.low), abs(two.high)) * two.rows * 2)
    return abs(one.total - two.total) <= 1e-12 * two.rows * max(abs(two.low), abs(two.high))


def in_memory(columns):
    def opened():
        con = duckdb.connect(config=OFFLINE)
        con.register("given", pa.table(columns))
        con.execute("CREATE TABLE log AS SELECT * FROM given")
        return con

    source = CountingDuck("memory", opened, lambda con: "log")
    source.dialect = CUTTING  # so that every part of the text is tried on an engine that is always here
    return source


CUTTING = dataclasses.replace(DUCKDB, local=False)


@settings(max_examples=50, deadline=None)
@given(tables(), asks(), declared(), windows())
def test_any_tally_is_the_same_counted_there_and_here(columns, asked, options, window):
    source = in_memory(columns)
    table = Rows(source, options)
    table = table.between(*window) if window else table
    same(table._pushed(asked), table._streamed(asked))
    assert table.rows() == table._streamed([Ask("number")])["number"].rows


def test_a_column_of_a_local_table_is_put_between_cuts_here_and_its_values_are_counted_there(tmp_path):
    table = opened(tmp_path, write(tmp_path, "parquet", log_rows()))
    asked = [Ask("score", cuts=(0.5,)), Ask("version", top=1), Ask("p0"), Ask("at")]
    assert set(table._pushed(asked)) == {"version"}, "lists and times in text are read here"
    same(table.tally(asked), table._streamed(asked))


def test_numbers_too_many_of_which_are_equally_frequent_are_put_in_order_here(monkeypatch):
    monkeypatch.setattr(_push, "MANY", 5)
    table = Rows(in_memory({"x": pa.array([float(place) for place in range(8)]), "y": pa.array([1.0] * 8)}), {})
    asked = [Ask("x", top=2), Ask("y", top=2)]
    assert set(table._pushed(asked)) == {"y"}
    assert table.tally(asked)["x"].by_key == {"0": 1, "1": 1, None: 6}


def test_a_tally_wider_than_a_select_may_be_comes_in_several():
    table = Rows(in_memory({f"x{place}": pa.array([1.0, None, 5.0]) for place in range(60)}), {})
    asked = [Ask(f"x{place}", cuts=tuple(map(float, range(30)))) for place in range(60)]
    same(table._pushed(asked), table._streamed(asked))
    assert len(table._pushed(asked)) == 60


@pytest.mark.parametrize("say", [DUCKDB, POSTGRES, SPARK, TRINO, BIGQUERY])
def test_text_and_names_are_quoted_so_that_nothing_in_them_ends_them(say):
    for nasty in ("it's", 'a"b', "a`b", "\\", "\\'", "'; DROP TABLE x; --"):
        assert say.string(nasty)[0] == say.string(nasty)[-1] == "'"
        inner = say.string(nasty)[1:-1].replace("\\\\", "").replace("\\'", "") if say is SPARK else say.string(nasty)[1:-1].replace("''", "")
        assert "'" not in inner
        assert say.quote not in say.name(nasty)[1:-1].replace(say.quote * 2, "")


@given(st.floats(), st.sampled_from([DUCKDB, POSTGRES, SPARK, TRINO, BIGQUERY]))
def test_a_number_is_written_to_its_last_bit(value, say):
    text = say.number(value).split("'")[1]
    assert float(text) == value or (math.isnan(value) and text == "NaN")


INSTANTS = st.one_of(st.datetimes(datetime(2026, 3, 25), datetime(2026, 11, 2)), st.datetimes()).map(lambda at: at.replace(tzinfo=UTC))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(_times.UNITS)), INSTANTS, st.integers(-8, 8), st.floats(allow_nan=False, allow_infinity=False))
def test_an_edge_in_epochs_is_where_a_read_time_comes_into_the_window(unit, at, step, anywhere):
    (edge, _), here = _edges.epochs((at, at), unit), _times.micros(at)
    near = (edge, float(np.nextafter(edge, -np.inf)), here / _times.UNITS[unit] + step / 4, max(min(anywhere, 1e290), -1e290))
    for value in near:
        read = _times.read(np.array([value]), False, {"column": "at", "unit": unit}, "here")[0]
        assert (value >= edge) == (read != _times.NEVER and read >= here)
    whole = _edges.least_integer(edge)
    assert whole is None or float(whole) >= edge > float(whole - 1)


ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ZONES), INSTANTS, st.timedeltas(timedelta(0), timedelta(days=300)), st.data())
def test_stretches_of_wall_clock_hold_what_is_read_into_the_window(tz, start, length, data):
    end = min(start, datetime.max.replace(tzinfo=UTC) - length) + length
    start = end - length
    stretches = _edges.walls((start, end), tz)
    edges = [start.replace(tzinfo=None), end.replace(tzinfo=None), *(edge for stretch in stretches for edge in stretch)]
    near = data.draw(st.sampled_from(edges)), data.draw(st.one_of(st.integers(-3, 3), st.integers(-(10**11), 10**11)))
    micros = (near[0] - datetime(1970, 1, 1)) // timedelta(microseconds=1) + near[1]
    read = int(_times.localise(np.array([micros], dtype=np.int64), tz)[0])
    inside = any(_wall(one) <= micros < _wall(two) for one, two in stretches)
    assert inside == (_times.micros(start) <= read < _times.micros(end)) or max(micros, _times.micros(end)) > FAR_FUTURE


FAR_FUTURE = (datetime(9999, 12, 30) - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # where a wall clock may lie beyond what a datetime can say


def _wall(at):
    return (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)
