"""Counts made by an engine are those made here: for any table, any window and any question, and whatever a name or a value tries."""

import math
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Ask
from agent.targets._dialect import DUCKDB
from agent.targets._duck import OFFLINE, CountingDuck
from agent.targets._tables import Rows
from tests.logs import START

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


CUTTING = type(DUCKDB)(**{**{name: getattr(DUCKDB, name) for name in DUCKDB.__dataclass_fields__}, "local": False})


@settings(max_examples=150, deadline=None)
@given(tables(), asks(), declared(), windows(), st.booleans())
def test_any_tally_is_the_same_counted_there_and_here(columns, asked, options, window, grouped):
    source = in_memory(columns)
    source.dialect = type(CUTTING)(**{**{name: getattr(CUTTING, name) for name in CUTTING.__dataclass_fields__}, "grouped": grouped})
    table = Rows(source, options)
    table = table.between(*window) if window else table
    same(table._pushed(asked), table._streamed(asked))
    assert table.rows() == table._streamed([Ask("number")])["number"].rows
