"""Every rule of data.contract on real files in every format: what breaks it is named and counted, which rows by hashed id, and no value is told."""

import hashlib
import json
import sqlite3
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from agent import Locator, Status, Window
from agent.errors import ConfigError, PluginError
from agent.perform import perform
from agent.targets._tables import Rows
from agent.targets.sqlite import SqliteSource
from checks import _contract, _keys
from checks._rules import Pair, Rule
from checks.data import contract
from tests.logs import FILES, LOG, START, log_rows, opened, write

NOW = START + timedelta(seconds=41)
PLAIN = {"id": "id"}


def orders(count=40, **columns):
    """Orders with some columns made by a function of the row's place."""
    usual = {
        "id": lambda n: f"order-{n}",
        "customer": lambda n: n % 7,
        "day": lambda n: n // 7,
        "code": lambda n: f"AB-{n:04}",
        "began": lambda n: float(n),
        "ended": lambda n: n + 1.5,
    }
    return [{name: made(n) for name, made in (usual | columns).items()} for n in range(count)]


def judged(folder, rows, form="parquet", parents=None, options=PLAIN, **rules):
    return contract(opened(folder, write(folder, form, rows), options), None, NOW, parents, **rules)


def told(verdict):
    return json.loads(verdict.data["contract.json"])


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_a_whole_table_without_a_time_is_judged_where_no_window_is(tmp_path, form):
    rules = {
        "code": Rule(pattern=r"[A-Z]{2}-\d{4}", shortest=7, longest=7, unique=True, nulls=0),
        "began": Rule(low=0, unique=True),
        "id": Rule(unique=True),
    }
    verdict = judged(
        tmp_path, orders(), form, columns=rules, pairs=[Pair("ended", at_least="began")], unique=[["customer", "day"]], volume=40, volume_at_most=40
    )
    assert (verdict.status, verdict.reason) == (Status.OK, "40 rows keep the contract of 3 columns")
    assert told(verdict) == {
        "rows": 40,
        "columns": 3,
        "broken": [],
        "not_judged": [],
        "ids": "sha256 of the id, first 12 hex digits, at most 20 a rule",
    }


@pytest.mark.parametrize(
    ("rules", "columns", "broken", "rows"),
    [
        ({"columns": {"code": Rule(pattern=r"AB-\d+")}}, {"code": lambda n: "XX" if n in (3, 5) else "AB-1"}, "code.pattern", [3, 5]),
        ({"columns": {"code": Rule(pattern=r"AB")}}, {"code": lambda n: "AB\n" if n == 3 else "AB"}, "code.pattern", [3]),
        ({"columns": {"code": Rule(longest=4)}}, {"code": lambda n: "é" * (4 + (n == 9))}, "code.characters", [9]),
        ({"columns": {"code": Rule(shortest=1)}}, {"code": lambda n: "x" * (n != 9) + "y" * (n != 9)}, "code.characters", [9]),
        ({"columns": {"code": Rule(unique=True)}}, {"code": lambda n: f"c{n % 38}"}, "code.unique", [38, 39]),
        ({"columns": {"customer": Rule(unique=True)}}, {"customer": lambda n: 2**60 + n - (n == 39)}, "customer.unique", [39]),
        ({"columns": {"began": Rule(unique=True)}}, {"began": lambda n: -0.0 if n == 7 else n / 2}, "began.unique", [7]),
        ({"unique": [["customer", "day"]]}, {"day": lambda n: 4 if n == 38 else n // 7}, "customer+day.unique", [38]),
        ({"pairs": [Pair("ended", at_least="began")]}, {"ended": lambda n: n - 1.0 if n in (2, 4) else n + 1.0}, "ended.at_least.began", [2, 4]),
        ({"pairs": [Pair("began", below="customer")]}, {"customer": lambda n: n + (n != 6)}, "began.below.customer", [6]),
        ({"pairs": [Pair("id", equals="code")]}, {"code": lambda n: f"order-{n + (n == 8)}"}, "id.equals.code", [8]),
        ({"columns": {"customer": Rule(categories=(0, 1, 2, 3, 4, 5))}}, {}, "customer.unseen", [6, 13, 20, 27, 34]),
        ({"columns": {"began": Rule(high=38)}}, {}, "began.range", [39]),
        ({"columns": {"began": Rule(nulls=0)}}, {"began": lambda n: None if n == 1 else 0.5}, "began.nulls", [1]),
    ],
)
def test_a_broken_rule_tells_how_many_rows_and_their_hashed_ids(tmp_path, form, rules, columns, broken, rows):
    if form == "csv" and columns.get("code") and columns["code"](9) == "":
        pytest.skip("an empty text in CSV is a null")
    verdict = judged(tmp_path, orders(**columns), form, **rules)
    assert list(verdict.parts) == [broken], verdict.reason
    (one,) = told(verdict)["broken"]
    assert (one["rule"], one["rows"], one["ids"]) == (broken, len(rows), [short(f"order-{n}") for n in rows])
    assert f"in {len(rows)} of 40 rows" in verdict.reason


def test_no_value_of_any_row_is_told_but_the_extremes_of_a_range(tmp_path):
    rows = orders(code=lambda n: f"secret{n % 3}", id=lambda n: f"person-{n}", customer=lambda n: 4711)
    rules = {"code": Rule(pattern="x+", categories=("no",), longest=2, unique=True), "customer": Rule(categories=(1,), unique=True)}
    verdict = judged(tmp_path, rows, columns=rules, pairs=[Pair("id", equals="code")], unique=[["code", "customer"]])
    assert len(verdict.parts) == 8
    everything = verdict.reason + verdict.data["contract.json"].decode() + str(verdict.parts)
    assert not [word for word in ("secret", "person", "4711") if word in everything]
    assert all(len(one["ids"]) == 20 for one in told(verdict)["broken"])


def test_without_an_id_rows_are_counted_and_none_is_named(tmp_path):
    found = told(judged(tmp_path, orders(), options={}, columns={"began": Rule(high=3)}))
    assert found["broken"][0]["ids"] == []
    assert found["ids"] == "the table declares no id, so that no row can be named"


def test_whole_number_ids_beyond_floats_are_hashed_as_they_are(tmp_path, form):
    rows = [{"id": 2**60 + n, "x": n} for n in range(3)]
    (one,) = told(judged(tmp_path, rows, form, columns={"x": Rule(high=1)}))["broken"]
    assert one["ids"] == [short(str(2**60 + 2))]


@pytest.mark.parametrize("other", FILES)
def test_every_value_stands_in_the_table_of_parents_however_each_stores_it(tmp_path, other):
    (tmp_path / "parents").mkdir()
    parents = opened(tmp_path / "parents", write(tmp_path / "parents", other, [{"key": n} for n in range(6)]), {})
    verdict = judged(tmp_path, orders(customer=lambda n: None if n == 0 else f"{n % 7}"), "sqlite", parents, columns={"customer": Rule(parent="key")})
    assert verdict.reason == "1 rule broken in 40 rows: customer is not in key of its parents in 5 of 40 rows"
    assert told(verdict)["broken"][0]["ids"] == [short(f"order-{n}") for n in range(6, 40, 7)]
    assert judged(tmp_path, orders(customer=lambda n: n % 6 + 0.0), "csv", parents, columns={"customer": Rule(parent="key")}).good
    with pytest.raises(ConfigError, match="has no column 'kee'"):
        judged(tmp_path, orders(), "csv", parents, columns={"customer": Rule(parent="kee")})


def test_an_empty_table_of_parents_has_no_child(tmp_path):
    (tmp_path / "parents").mkdir()
    parents = opened(tmp_path / "parents", write(tmp_path / "parents", "parquet", [{"key": 1}]), {"exclude": [{"column": "key", "equals": 1}]})
    assert judged(tmp_path, orders(), "csv", parents, columns={"customer": Rule(parent="key")}).parts["customer.parent"].observed == 1


def test_a_parent_rule_without_a_table_of_parents_is_a_mistake_of_the_configuration(tmp_path):
    with pytest.raises(ConfigError, match="none is bound"):
        judged(tmp_path, orders(), columns={"customer": Rule(parent="key")})


def test_shares_allow_what_they_say(tmp_path):
    rows = orders(code=lambda n: "odd" if n < 4 else "AB-1", ended=lambda n: -1.0 if n < 4 else n + 1.0)
    allowed = {"columns": {"code": Rule(pattern="AB-1", unlike=0.1)}, "pairs": [Pair("ended", at_least="began", outside=0.1)]}
    assert judged(tmp_path, rows, **allowed).good
    assert not judged(tmp_path, rows, columns={"code": Rule(pattern="AB-1", unlike=0.09)}).good


def test_too_many_rows_break_the_volume(tmp_path):
    verdict = judged(tmp_path, orders(), volume_at_most=30)
    assert verdict.reason == "1 rule broken in 40 rows: 40 rows came, at most 30 should"


def test_a_closed_contract_names_new_columns(tmp_path, form):
    rows = [row | {"new": 1, "newer": 2} for row in orders()]
    rules = {name: Rule() for name in ("customer", "day")}
    verdict = judged(tmp_path, rows, form, columns=rules, closed=True, pairs=[Pair("ended", at_least="began")], unique=[["code"]])
    assert verdict.reason == "1 rule broken in 40 rows: 2 columns of which the contract knows nothing: new, newer"
    assert contract(opened(tmp_path, write(tmp_path, form, log_rows()), LOG), None, NOW, closed=True, columns={"probe": Rule()}).good


def test_what_a_pair_or_a_set_needs_and_is_not_there_is_a_broken_rule(tmp_path):
    verdict = judged(tmp_path, orders(), pairs=[Pair("ended", at_least="start"), Pair("code", above="began")], unique=[["customer", "hour"]])
    assert set(verdict.parts) == {"ended.at_least.start", "code.above.began", "customer+hour.unique"}
    assert "customer+hour.unique needs column hour, which is missing" in verdict.reason
    assert "code holds text, began number: no order" in verdict.reason


def test_a_pair_with_a_column_of_nothing_keeps_its_order_in_every_format(tmp_path, form):
    rows = orders(ended=lambda n: None)
    table = opened(tmp_path, write(tmp_path, form, rows, {"ended": pa.float64()}), PLAIN)
    assert contract(table, None, NOW, pairs=[Pair("ended", at_least="began")]).good


def test_a_text_rule_on_numbers_breaks_the_type_and_nothing_else(tmp_path, form):
    verdict = judged(tmp_path, orders(code=lambda n: n), form, columns={"code": Rule(pattern="AB", longest=3)})
    assert list(verdict.parts) == ["code.type"]
    assert "code holds integer, not text" in verdict.reason


def test_freshness_of_a_table_without_a_declared_time_is_a_mistake_of_the_configuration(tmp_path):
    with pytest.raises(ConfigError, match="declare the table's time"):
        judged(tmp_path, orders(), freshness=timedelta(hours=1))


def test_a_whole_table_is_as_fresh_as_its_newest_row(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    verdict = contract(table, None, NOW + timedelta(days=3), freshness=timedelta(hours=1))
    assert verdict.reason == "1 rule broken in 38 rows: the newest event is 3d2s old (limit 1h)"
    assert contract(table, None, NOW, freshness=timedelta(hours=1)).good


# Rules that cannot hold, or cannot be asked


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"pattern": "["}, "does not compile"),
        ({"pattern": "(?=a)b"}, "RE2 does not have"),
        ({"pattern": r"(a)\1"}, "RE2 does not have"),
        ({"pattern": "a" * 2000}, "more than 1,000 characters"),
        ({"low": 3, "high": 2}, "low is above high"),
        ({"shortest": 3, "longest": 2}, "shortest is above longest"),
        ({"nulls": 1.5}, "share of the rows"),
    ],
)
def test_a_rule_that_no_row_could_keep_is_refused(rule, says):
    with pytest.raises(ValueError, match=says):
        Rule(**rule)


def test_a_pair_says_exactly_one_thing():
    for wrong in ({}, {"above": "a", "below": "b"}, {"above": "a", "outside": 2.0}):
        with pytest.raises(ValueError, match=r"exactly one|share"):
            Pair("x", **wrong)


def test_a_pattern_that_only_python_reads_is_refused_when_it_is_used(tmp_path):
    with pytest.raises(ConfigError, match="RE2"):
        judged(tmp_path, orders(), columns={"code": Rule(pattern="a{1,1001}b(?#note)")})


def test_a_hostile_text_costs_a_hostile_pattern_no_more_than_its_length(tmp_path):
    rows = orders(code=lambda n: "a" * 20_000 + "!")
    assert judged(tmp_path, rows, columns={"code": Rule(pattern="(a+)+(a|aa)*")}).parts["code.pattern"].observed == 1


def test_a_wrong_rule_in_a_job_names_the_check(tmp_path):
    at = Locator("", "live", write(tmp_path, "csv", orders()), folder=str(tmp_path))
    job = {"check": "data.contract", "locators": {"live": at}, "parameters": {"columns": {"code": {"pattern": "["}}}, "now": NOW}
    with pytest.raises(PluginError, match="does not compile"):
        perform(job)


# Several columns side by side


def test_columns_side_by_side_are_of_one_row_and_are_what_each_is_alone(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    names = ["at", "request_id", "score", "p1", "inputs.length", "prediction"]
    chunks = list(table.chunks(names, {"prediction", "at", "p1"}))
    both = {name: np.concatenate([chunk[name] for chunk in chunks]).tolist() for name in names}
    for name in names[:-1]:
        alone = np.concatenate(list(table.column(name))).tolist()
        assert [value for value in both[name] if value == value] == [value for value in alone if value == value]
    rows = [row for row in log_rows() if row["request_id"] in both["request_id"]]
    assert [(row["request_id"], str(row["prediction"]), json.loads(row["inputs"])[1]) for row in rows] == list(
        zip(both["request_id"], both["prediction"], both["p1"], strict=True)
    )


def test_a_watch_may_bind_its_table_of_parents(tmp_path):
    from agent.config import load

    write(tmp_path, "parquet", orders())
    (tmp_path / "customers.csv").write_text("id\n0\n1\n")
    (tmp_path / "watchkeeper.yaml").write_text(
        "services:\n  shop:\n    targets:\n      live: {url: 'parquet:log.parquet', id: id}\n"
        "    watches:\n      - check: data.contract\n        with: {columns: {customer: {parent: id}}}\n"
        "        bind: {parents: 'csv:customers.csv'}\n"
    )
    service = load(tmp_path / "watchkeeper.yaml").services["shop"]
    (watch,) = service.watches
    job = {"check": watch.check, "locators": {**service.targets, **watch.bind}, "parameters": watch.parameters, "now": NOW}
    assert perform(job).parts["customer.parent"].observed == pytest.approx(28 / 40)


# One pass


class Counted(SqliteSource):
    """A SQLite file that counts how often its rows are read, and which columns of them."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = []

    def scan(self, columns, where, exact=False):
        self.read.append(set(columns))
        return super().scan(columns, where, exact)


def test_all_rules_together_read_the_rows_once_and_the_time_once_more(tmp_path):
    write(tmp_path, "sqlite", [row | {"began": 1.0, "ended": 2.0} for row in log_rows()])
    source = Counted(tmp_path / "log.sqlite", "log")
    rules = {
        "score": Rule(low=0, high=1, nulls=0.2, unique=True),
        "request_id": Rule(pattern=r"id\d+", longest=9, unique=True),
        "prediction": Rule(categories=(0, 1, 2)),
    }
    verdict = contract(
        Rows(source, LOG),
        Window(START, START + timedelta(seconds=40)),
        NOW,
        columns=rules,
        features=Rule(low=0, high=40),
        pairs=[Pair("ended", above="began")],
        unique=[["request_id", "version"]],
        freshness=timedelta(minutes=1),
        volume=1,
        volume_at_most=50,
    )
    assert verdict.good, verdict.reason
    whole = [columns for columns in source.read if columns != {"at"}]
    assert whole == [{"request_id", "version", "inputs", "prediction", "score", "began", "ended", "at"}]
    assert len(source.read) - len(whole) == 3  # the time column: freshness and the future in one, and twice whether all texts around are UTC


# Uniqueness in bounded memory


def test_repeats_are_found_in_chunks_of_any_size_as_a_set_finds_them():
    rng = np.random.default_rng(3)
    for high, size in ((50, 7), (10_000, 100), (10**9, 1)):
        values = rng.integers(0, high, 2000).astype(np.float64)
        before, seen, expected = _keys.Repeats(), set(), []
        for value in values.tolist():
            expected.append(value in seen)
            seen.add(value)
        found = [before.came(_keys.hashed(values[first : first + size])) for first in range(0, 2000, size)]
        assert np.concatenate(found).tolist() == expected
        assert sum(map(len, before.runs)) == 2000


def test_pairs_of_small_numbers_do_not_collide():
    one, other = (grid.ravel().astype(np.float64) for grid in np.meshgrid(np.arange(300), np.arange(300)))
    assert len(np.unique(_keys.combined([_keys.hashed(one), _keys.hashed(other)]))) == 300 * 300
    assert len(np.unique(_keys.combined([_keys.hashed(one), _keys.hashed(_keys.spelled(other))]))) == 300 * 300


def test_beyond_its_bound_uniqueness_is_not_told_and_not_guessed(tmp_path):
    rows = opened(tmp_path, write(tmp_path, "parquet", orders(code=lambda n: "same")), PLAIN)
    found = _contract.judged(rows, rows.kinds(), {"code": Rule(unique=True), "began": Rule(unique=True)}, [], [], None, room=39)
    assert found.broken == []
    assert found.unjudged[0] == "40 rows are more than the 39 in which repeated code can be told; look at shorter windows"
    assert _contract.judged(rows, rows.kinds(), {"code": Rule(unique=True)}, [], [], None, room=40).broken[0].rows == 39


def test_what_could_not_be_told_is_an_error_unless_something_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(_contract, "ROWS", 10)
    verdict = judged(tmp_path, orders(), columns={"code": Rule(unique=True)})
    assert verdict.status is Status.ERROR
    assert "in which repeated code can be told; look at shorter windows" in verdict.reason
    verdict = judged(tmp_path, orders(), columns={"code": Rule(unique=True), "began": Rule(high=3)})
    assert verdict.status is Status.FAIL
    assert "could not tell: 40 rows are more than the 10" in verdict.reason


def test_a_million_different_values_are_judged_within_the_bound(tmp_path):
    numbers = pa.array(np.arange(1_000_000))
    pa.parquet.write_table(pa.table({"id": numbers.cast(pa.string()), "n": numbers}), tmp_path / "log.parquet", use_dictionary=False)
    verdict = contract(opened(tmp_path, "parquet:log.parquet", PLAIN), None, NOW, columns={"id": Rule(unique=True), "n": Rule(unique=True)})
    assert verdict.good, verdict.reason


# Odd tables


def test_dates_and_decimals_are_times_and_numbers(tmp_path):
    from datetime import date
    from decimal import Decimal

    table = pa.table(
        {"day": [date(2026, 1, 1), date(2026, 1, 2)], "until": [date(2026, 1, 3), date(2026, 1, 1)], "paid": [Decimal("1.10"), Decimal("2.20")]}
    )
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    rules = {"day": Rule(type="time"), "paid": Rule(type="number", low=0, high=2)}
    verdict = contract(opened(tmp_path, "parquet:log.parquet", {}), None, NOW, columns=rules, pairs=[Pair("until", at_least="day")])
    assert set(verdict.parts) == {"paid.range", "until.at_least.day"}


def test_two_columns_of_one_name_are_told_apart_as_the_reader_does(tmp_path):
    (tmp_path / "log.csv").write_text("a,a\n1,2\n3,4\n")
    table = opened(tmp_path, "csv:log.csv", {})
    assert list(table.kinds()) == ["a", "a_1"]
    assert list(contract(table, None, NOW, columns={"a": Rule(high=2), "a_1": Rule(high=3)}).parts) == ["a.range", "a_1.range"]


def test_columns_and_values_of_any_spelling_are_judged(tmp_path, form):
    names = ["no", "1", "a: b", "*x", "é ü", "日本", "sélect", "it's", 'qu"ote']
    rows = [dict.fromkeys(names, n) for n in range(5)]
    verdict = judged(tmp_path, rows, form, options={}, columns={name: Rule(high=3) for name in names})
    assert sorted(verdict.parts) == sorted(f"{name}.range" for name in names)


def test_one_row_and_a_table_without_rows(tmp_path):
    assert judged(tmp_path, orders(1), columns={"code": Rule(unique=True)}).reason == "1 row keeps the contract of 2 columns"
    with sqlite3.connect(tmp_path / "none.sqlite") as con:
        con.execute("CREATE TABLE log (x INTEGER)")
    verdict = contract(opened(tmp_path, "sqlite:none.sqlite", {}), None, NOW, columns={"x": Rule(low=0, unique=True)})
    assert (verdict.status, verdict.reason) == (Status.NODATA, "0 rows; 1 are needed")
