"""privacy.identifiers: real tables; numbers with check digits as they are published."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Status
from checks import _identifiers, privacy
from tests.logs import opened, write

CLASSES = {"id": "internal", "note": "internal", "who": "personal", "x*": "public"}


def looked(folder, note="fine", who="ada@example.org", classes=CLASSES, n=20):
    rows = [{"id": f"i{place}", "note": note, "who": who, "x1": float(place), "x2": place} for place in range(n)]
    table = opened(folder, write(folder, "parquet", rows), {})
    said = privacy.identifiers(table, classes=classes)
    table.close()
    return said


def test_what_is_classed_and_free_of_identifiers_is_well(tmp_path):
    said = looked(tmp_path)
    assert said.status is Status.OK and said.reading.observed == 1.0
    assert json.loads(said.data["identifiers.json"])["found"] == {"who": {"mail addresses": 20}}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to eve@example.org today", "mail addresses"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "IBANs"),
        ("4111 1111 1111 1111", "card numbers"),
        ("5500-0000-0000-0004", "card numbers"),
        ("078-05-1120", "social security numbers"),
        ("call +49 30 901820", "telephone numbers"),
    ],
)
def test_an_identifier_where_none_should_be_is_counted_and_never_shown(tmp_path, text, kind):
    said = looked(tmp_path, note=text)
    assert said.status is Status.FAIL and f"20 {kind} in note" in said.reason
    whole = said.reason + said.data["identifiers.json"].decode()
    assert text not in whole and "eve@" not in whole and "4111" not in whole
    assert looked(tmp_path, note=text, classes=CLASSES | {"note": "personal"}).status is Status.OK


@pytest.mark.parametrize(
    "text", ["4111 1111 1111 1112", "GB82 WEST 1234 5698 7654 33", "000-12-3456", "3.14159265358979", "a@b", "1111111111111111", "+1"]
)
def test_what_only_looks_like_one_is_none(tmp_path, text):
    assert looked(tmp_path, note=text).status is Status.OK


@pytest.mark.parametrize(
    ("classes", "status"),
    [({"*": "personal"}, Status.OK), ({k: v for k, v in CLASSES.items() if k != "note"}, Status.WARN), ({"who": "personal"}, Status.FAIL)],
)
def test_columns_without_a_class_count(tmp_path, classes, status):
    assert looked(tmp_path, classes=classes).status is status


def test_an_empty_table_says_nothing(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "log.parquet")
    assert privacy.identifiers(opened(tmp_path, f"parquet:{tmp_path}/log.parquet", {}), classes={}).status is Status.NODATA


@settings(max_examples=25)
@given(st.lists(st.integers(10**12, 10**18), min_size=50, max_size=80, unique=True))
def test_long_numbers_of_another_sort_are_no_cards(numbers):
    by_chance = sum(_identifiers._luhn(str(one)) for one in numbers)
    found = _identifiers.found(numbers, "n").get("card numbers", 0)
    assert found == (by_chance if by_chance >= len(numbers) / 2 else 0)


@given(st.text(max_size=200) | st.integers() | st.none() | st.booleans() | st.floats())
def test_anything_can_be_searched(cell):
    assert all(count == 1 for count in _identifiers.found([cell], "x").values())
