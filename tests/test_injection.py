"""injection.faults: real rows in a real file, each of six faults put in on their way; the file is never touched."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from agent import Status, Window
from checks import _altered, injection
from checks.data import contract
from tests.logs import START, opened, write

COLUMNS = {
    "amount": {"low": 0, "high": 100, "nulls": 0.0},
    "country": {"categories": ["de", "it"], "type": "text"},
    "id": {"unique": True},
}
DECLARED = {"time": {"column": "at", "tz": "UTC"}, "id": "id", "features": ["amount", "country"]}
WINDOW = Window(START, START + timedelta(hours=1))
NOW = WINDOW.end


def rows(n=40, **more):
    return [
        {"at": (START + timedelta(seconds=place)).isoformat(), "id": f"i{place}", "amount": place * 1.0, "country": ["de", "it"][place % 2], **more}
        for place in range(n)
    ]


@pytest.fixture
def live(tmp_path):
    made = opened(tmp_path, write(tmp_path, "csv", rows()), DECLARED)
    yield made
    made.close()


def test_a_contract_that_says_enough_notices_all_six_and_the_file_stays_as_it_is(live, tmp_path):
    before = hashlib.sha256((tmp_path / "log.csv").read_bytes()).hexdigest()
    said = injection.faults(live, WINDOW, columns=COLUMNS)
    assert said.status is Status.OK and said.reason == "6 of 6 faults in a copy of 40 rows break the contract"
    assert set(said.parts) == {f"injected.{name}" for name in injection.FAULTS} and all(one.observed == 1 for one in said.parts.values())
    assert hashlib.sha256((tmp_path / "log.csv").read_bytes()).hexdigest() == before
    assert contract(live, WINDOW, NOW, columns=COLUMNS).status is Status.OK


@pytest.mark.parametrize(
    ("without", "status", "missed"),
    [
        ({"id": None}, Status.WARN, "duplicates, for which no column has a rule"),
        ({"country": None, "id": None}, Status.WARN, "unseen category, for which"),
        ({"country": None, "id": None, "amount": {"nulls": 0.0}}, Status.FAIL, "out of range, for which"),
        ({"amount": {"low": 0, "high": 100, "nulls": 0.6}}, Status.WARN, "null spike in amount"),
        ({"amount": {"low": 0, "high": 100, "nulls": 0.0, "outside": 0.9}}, Status.WARN, "out of range in amount"),
    ],
)
def test_what_a_contract_does_not_say_is_not_noticed_and_named(live, without, status, missed):
    rules = {name: rule for name, rule in (COLUMNS | without).items() if rule is not None}
    said = injection.faults(live, WINDOW, columns=rules)
    assert said.status is status and missed in said.reason, said.reason


def test_rows_that_break_the_contract_already_tell_nothing(live):
    said = injection.faults(live, WINDOW, columns=COLUMNS | {"amount": {"high": 5}})
    assert said.status is Status.NODATA and "do not keep the contract" in said.reason
    assert injection.faults(live, Window(NOW, NOW + timedelta(hours=1)), columns=COLUMNS).status is Status.NODATA


def test_a_text_column_that_turns_to_numbers_is_a_type_flip(live):
    said = injection.faults(live, WINDOW, columns={"country": {"type": "text", "nulls": 0}, "id": {"unique": True}})
    assert said.parts["injected.type flip"].observed == 1 and said.status is Status.WARN


def test_features_in_json_can_be_spoiled_too(tmp_path):
    lines = [{"at": (START + timedelta(seconds=place)).isoformat(), "inputs": f"[{place}, 2.5]"} for place in range(30)]
    live = opened(tmp_path, write(tmp_path, "parquet", lines), {"time": DECLARED["time"], "features": {"json": "inputs", "size": 2}})
    said = injection.faults(live, WINDOW, features={"low": 0, "high": 100, "nulls": 0})
    assert said.reason.startswith("4 of 6") and said.status is Status.WARN
    live.close()


def test_what_is_altered_is_neither_counted_nor_shown(live):
    spoilt = _altered.Altered(live, "amount", _altered.nulls)
    for ask in (lambda: spoilt.head(["amount"], 1), spoilt.digest):
        with pytest.raises(Exception, match="altered on their way"):
            ask()
    assert spoilt.rows() == 40 and _altered.Altered(live, twice=True).rows() == 80
