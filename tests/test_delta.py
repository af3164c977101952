"""Delta Lake tables written by Delta Lake itself: versions, columns that came later, rows that were deleted, and tables that cannot be read whole."""

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from deltalake import DeltaTable, write_deltalake

from agent import Ask
from agent.errors import ConfigError, DataError
from tests.logs import START, column, opened


@pytest.fixture
def lake(tmp_path):
    """Two versions: the second adds a row, and a column that the first has not."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1.0, 2.0], "p": ["a", "b"]}), partition_by=["p"])
    write_deltalake(tmp_path / "t", pa.table({"x": [3.0], "p": ["a"], "z": [5]}), mode="append", schema_mode="merge")
    return tmp_path


def test_a_column_that_came_later_is_null_in_older_rows(lake):
    table = opened(lake, "delta:t", {})
    assert dict(table.kinds()) == {"x": "number", "p": "text", "z": "integer"}
    found = table.tally([Ask("z"), Ask("p", top=1), Ask("x", cuts=(1.5,))])
    assert (found["z"].nulls, found["z"].high, found["p"].by_key, found["x"].counts) == (2, 5, {"a": 2, None: 1}, (1, 2))
    assert sorted(zip(column(table, "x"), np.isnan(column(table, "z")), strict=True)) == [(1, True), (2, True), (3, False)]


def test_a_version_of_the_past_is_what_it_was(lake):
    assert (opened(lake, "delta:t?version=0", {}).rows(), opened(lake, "delta:t?version=1", {}).rows()) == (2, 3)
    assert set(opened(lake, "delta:t?version=0", {}).kinds()) == {"x", "p"}
    with pytest.raises(DataError, match=r"version=9 cannot be read: .*9"):
        opened(lake, "delta:t?version=9", {}).rows()


@pytest.mark.parametrize("url", ["delta:t?version=-1", "delta:t?version=", "delta:t?version=newest", "delta:t?table=x"])
def test_what_is_no_version_is_refused_before_anything_is_read(lake, url):
    with pytest.raises(ConfigError, match=r"no version of a Delta table|no option table"):
        opened(lake, url, {})


def test_a_window_asked_for_later_sees_what_was_committed_since(tmp_path):
    def commit(rows):
        write_deltalake(tmp_path / "t", pa.table({"at": [START + timedelta(seconds=n) for n in range(rows)]}), mode="append")

    commit(3)
    table, then = (opened(tmp_path, url, {"time": {"column": "at"}}) for url in ("delta:t", "delta:t?version=0"))
    day = (START, START + timedelta(days=1))
    assert table.between(*day).rows() == then.between(*day).rows() == 3
    commit(4)
    assert (table.between(*day).rows(), then.between(*day).rows()) == (7, 3)


def test_deleted_rows_are_gone_and_a_restored_version_is_back(lake):
    delta = DeltaTable(lake / "t")
    delta.delete("x = 1.0")
    assert opened(lake, "delta:t", {}).rows() == 2
    delta.restore(0)
    assert sorted(column(opened(lake, "delta:t", {}), "x")) == [1, 2]


def test_a_file_of_the_version_that_was_taken_away_is_an_error_not_fewer_rows(lake):
    next((lake / "t" / "p=b").glob("*.parquet")).unlink()
    for read in (lambda table: column(table, "x"), lambda table: table.tally([Ask("x")])):
        with pytest.raises(DataError, match="cannot be read"):
            read(opened(lake, "delta:t", {}))


def test_deletion_vectors_are_refused_not_read_past(tmp_path):
    (tmp_path / "v" / "_delta_log").mkdir(parents=True)
    pyarrow.parquet.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "v" / "f.parquet")
    shape = json.dumps({"type": "struct", "fields": [{"name": "x", "type": "double", "nullable": True, "metadata": {}}]})
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    vector = {"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4, "sizeInBytes": 40, "cardinality": 1}
    bare = {"partitionColumns": [], "configuration": {}}
    size = (tmp_path / "v" / "f.parquet").stat().st_size
    lines = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"metaData": {"id": "1", "format": {"provider": "parquet", "options": {}}, "schemaString": shape, **bare}},
        {"add": {"path": "f.parquet", "partitionValues": {}, "size": size, "modificationTime": 1, "dataChange": True, "deletionVector": vector}},
    ]
    (tmp_path / "v" / "_delta_log" / f"{0:020}.json").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="deletionVectors"):
        opened(tmp_path, "delta:v", {}).rows()


def test_what_is_no_delta_table_says_so(tmp_path):
    (tmp_path / "parquet").mkdir()
    for name in ("parquet", "nowhere"):
        with pytest.raises(DataError, match="no Delta table in"):
            opened(tmp_path, f"delta:{name}", {}).rows()
    (tmp_path / "broken" / "_delta_log").mkdir(parents=True)
    (tmp_path / "broken" / "_delta_log" / f"{0:020}.json").write_text('{"protocol": ')
    for read in ("empty", "broken"):
        (tmp_path / read / "_delta_log").mkdir(parents=True, exist_ok=True)
        with pytest.raises(DataError, match="cannot be read"):
            opened(tmp_path, f"delta:{read}", {}).rows()


def test_a_table_without_rows_counts_nothing(tmp_path):
    write_deltalake(tmp_path / "t", pa.table({"x": pa.array([], pa.float64()), "w": pa.array([], pa.string())}))
    found = opened(tmp_path, "delta:t", {}).tally([Ask("x", cuts=(0.0,)), Ask("w", top=1)])
    assert (found["x"].rows, found["x"].low, found["x"].counts, found["w"].by_key) == (0, None, (0, 0), {None: 0})
