"""Spark, started for real: its counts are those made here, it hands over nothing else, and a check that needs more is refused at start-up."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from agent import Ask, Locator, Tally
from agent.config import load
from agent.errors import CannotError, ConfigError, PluginError
from agent.model import to_json
from agent.targets import connect
from agent.targets.files import Files
from checks.drift import compare
from tests.conftest import HOUSE, need
from tests.logs import START, OnlyCounts, opened, write
from tests.test_push import same

pytestmark = pytest.mark.timeout(400)  # a JVM starts within the first of them


@pytest.fixture(scope="module")
def spark():
    """Asks the one Spark of these tests: a question in, its answer out."""
    need("java")
    python = need("spark").parent / "python"
    program = [python, HOUSE / "tests" / "servers" / "spark.py"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=HOUSE) as process:

        def ask(folder, url, options=None, asks=(), window=None, **more):
            question = {"folder": str(folder), "url": url, "options": options or {}, "asks": to_json(asks), "window": to_json(window), **more}
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = next(line for line in iter(process.stdout.readline, "") if line.startswith("answer"))
            return json.loads(line.partition(" ")[2])

        yield ask
        process.stdin.close()
        process.wait(60)


def tally(told):
    return Tally(**told | {"counts": tuple(told["counts"]), "by_key": dict(told["by_key"])})


def random_rows(seed, count=300):
    """All that a column can hold, made from one seed."""
    dice = np.random.default_rng(seed)
    odd = [None, 0.0, -0.0, 7.0, 7.5, float("nan"), float("inf"), float("-inf"), 2.0**53, 1e22, 5e-324, 1e308]
    words = [None, "", "a", "ab", "ä", "😀", "7", "A", "'", "\\", "\\'; DROP", "\n", "`", "a\0b", "null"]
    at = [START + timedelta(microseconds=int(step)) for step in dice.integers(-90_000_000_000, 90_000_000_000, count)]
    return pa.table(
        {
            "number": pa.array([odd[place] if place < len(odd) else place / 8 for place in dice.integers(0, 30, count)], pa.float64()),
            "integer": pa.array([int(value) for value in dice.integers(-(2**63), 2**63 - 1, count)], pa.int64()),
            "word": pa.array([words[place] for place in dice.integers(0, len(words), count)]),
            "fl`ag": pa.array([[None, True, False][place] for place in dice.integers(0, 3, count)]),
            "zoned": pa.array(at, pa.timestamp("us", tz="UTC")),
            "naive": pa.array([one.replace(tzinfo=None) for one in at], pa.timestamp("us")),
            "ms": pa.array([int(one.timestamp() * 1000) for one in at], pa.int64()),
            "epoch": pa.array([one.timestamp() for one in at], pa.float64()),
            "list": pa.array([list(dice.normal(size=size)) if size < 4 else None for size in dice.integers(0, 5, count)], pa.list_(pa.float64())),
        }
    )


ASKS = [
    Ask("number", (-1.0, 0.0, 1.5, float("inf")), top=3),
    Ask("integer", (-1e18, 0.5)),
    Ask("word", keys=("a", "ä", "'", "\\", "\\'; DROP", "\n", "a\0b", "\ud800", "nowhere")),
    Ask("fl`ag", keys=("true",)),
    Ask("zoned", (START.timestamp(),)),
    Ask("naive", (START.timestamp() + 60,)),
    Ask("p0", (0.0,)),
    Ask("list.length", keys=("3", "0")),
    Ask("list"),
]
FEATURES = {"features": {"json": "list", "size": 2}}


@pytest.mark.parametrize(
    ("seed", "time", "exclude"),
    [
        (1, {"column": "zoned"}, [{"column": "word", "prefix": "a"}]),
        (2, {"column": "naive", "tz": "Europe/Berlin"}, [{"column": "number", "equals": 7}, {"column": "fl`ag", "equals": 1}]),
        (3, {"column": "ms", "unit": "ms"}, [{"column": "word", "in": ["\\'; DROP", "7"]}]),
        (4, {"column": "epoch", "unit": "s"}, []),
    ],
)
def test_its_counts_are_those_made_here(spark, tmp_path, seed, time, exclude):
    pyarrow.parquet.write_table(random_rows(seed), tmp_path / "log.parquet")
    options = FEATURES | {"time": time, "exclude": exclude}
    asks = [ask for ask in [*ASKS, Ask("ms", (START.timestamp(),)), Ask("epoch")] if ask.column != "naive" or time["column"] != "naive"]
    window = (datetime(2026, 3, 28, 23, 10, tzinfo=UTC), datetime(2026, 3, 29, 5, 0, 0, 1, tzinfo=UTC))
    for span in (None, window):
        here = Files(Locator("fraud", "live", "parquet:log.parquet", options, folder=str(tmp_path)))
        here = here.between(*span) if span else here
        there = spark(tmp_path, "spark:log.parquet", options, asks, span)
        assert "error" not in there, there
        assert (there["kinds"], there["rows"]) == (here.kinds(), here.rows())
        assert span is None or 0 < there["rows"] < 150
        same({name: tally(told) for name, told in there["tallies"].items()}, here._streamed(asks))


def test_a_folder_is_looked_at_anew_and_an_empty_column_has_no_lowest(spark, tmp_path):
    (tmp_path / "log").mkdir()
    for rows in (2, 3):
        values = pa.table({"x": pa.array([None] * rows, pa.float64()), "at": [START] * rows})
        pyarrow.parquet.write_table(values, tmp_path / "log" / f"{rows}.parquet")
        there = spark(tmp_path, "spark:log", {"time": {"column": "at"}}, [Ask("x", (0.0,), top=2)], (START, START + timedelta(hours=1)))
        seen = sum(range(2, rows + 1))
        assert there["tallies"]["x"] == to_json(Tally(seen, seen, counts=(0, 0))) | {"by_key": [[None, 0]]}


def test_what_it_cannot_read_says_so(spark, tmp_path):
    pyarrow.parquet.write_table(pa.table({"at": [START.isoformat()], "j": ["[1]"], "x": [1.0]}), tmp_path / "log.parquet")
    for url, options, asked, error, words in (
        ("spark:nowhere", {}, "x", "DataError", "nowhere"),
        ("spark:?table=no.such`; DROP TABLE x", {}, "x", "DataError", "cannot be read"),
        ("spark:log.parquet", {}, "y", "DataError", "no column 'y'"),
        ("spark:log.parquet", {"features": {"json": "j", "size": 1}}, "p0", "DataError", "holds lists as text, which SQL cannot count exactly"),
        ("spark:log.parquet", {"time": {"column": "at"}}, "at", "DataError", "'at' holds text"),
    ):
        told = spark(tmp_path, url, options, [Ask(asked)])
        assert (told.get("error"), words in told.get("words", "")) == (error, True), told
    windowed = spark(tmp_path, "spark:log.parquet", {"time": {"column": "at"}}, [Ask("x")], (START, START + timedelta(hours=1)))
    assert "time column 'at' holds text, which SQL cannot count exactly; store it as times" in windowed["words"]


def test_it_is_stopped_at_the_deadline(spark, tmp_path):
    pyarrow.parquet.write_table(random_rows(5), tmp_path / "log.parquet")
    told = spark(tmp_path, "spark:log.parquet", {}, [Ask("word", top=3)], within=0.01)
    assert told["error"] == "DeadlineError"
    assert spark(tmp_path, "spark:log.parquet", {}, [Ask("word", top=3)])["rows"] == 300, "and the next look is not"


# Without Spark


def test_a_reference_that_only_counts_is_an_error_that_says_so_where_it_is_given_by_hand(tmp_path):
    live = opened(tmp_path, write(tmp_path, "parquet", [{"x": float(place)} for place in range(200)]), {})
    with pytest.raises(CannotError, match="gives counts only, no column 'x'"):
        compare(live, OnlyCounts(live))


def test_rows_and_columns_do_not_leave_it(tmp_path):
    table = connect(Locator("fraud", "live", "spark:log.parquet", folder=str(tmp_path)))
    assert table.can == frozenset()
    for read in (lambda: table.column("x"), lambda: table.head(["x"], 1), lambda: next(table._source.scan({}, ("", [])))):
        with pytest.raises(CannotError, match="gives counts only"):
            read()


@pytest.mark.skipif("pyspark" in sys.modules, reason="pyspark is here")
def test_without_pyspark_it_says_how_to_get_it(tmp_path):
    try:
        import pyspark  # noqa: F401
    except ImportError:
        with pytest.raises(PluginError, match=r"pip install 'watchkeeper\[spark\]'"):
            connect(Locator("fraud", "live", "spark:log.parquet")).rows()


@pytest.mark.parametrize("url", ["spark:", "spark:logs?table=x", "spark:logs?format=pickle", "spark:logs?tabel=x"])
def test_a_url_that_names_no_table_is_refused(url):
    with pytest.raises(ConfigError, match="names no table"):
        connect(Locator("fraud", "live", url))


CONFIG = """
services:
  fraud:
    owner: ada
    targets:
      live: {{url: "{url}", time: {{column: at, tz: UTC}}}}
      reference: parquet:train.parquet
    watches:
      - {{check: drift.multivariate, every: 1h}}
  other:
    owner: ada
    targets: {{live: "parquet:x.parquet", reference: "parquet:train.parquet"}}
    watches:
      - {{check: drift.multivariate, every: 1h, bind: {{live: "@fraud.live"}}}}
notify:
  channels:
    ada: {{url: "https://hooks.internal/ada"}}
"""


def test_a_check_that_needs_columns_is_refused_at_start_up_on_an_engine_that_only_counts(tmp_path):
    (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url="spark:logs/fraud"))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "watchkeeper.yaml")
    told = [line for line in caught.value.problems if "cannot stream columns, which drift.multivariate needs" in line]
    assert len(told) == len(caught.value.problems) == 2
    assert all("fraud.live (spark)" in line for line in told)


def test_a_contract_and_drift_over_windows_may_be_watched_on_an_engine_that_only_counts(tmp_path):
    contract = "- {check: data.contract, every: 1h, with: {columns: {x: {low: 0}}}}"
    watches = "\n      ".join([contract, *(f"- {{check: drift.{name}, every: 1h}}" for name in ("features", "compare"))])
    text = CONFIG.format(url="spark:logs/fraud").replace("- {check: drift.multivariate, every: 1h}", watches).partition("  other:")
    (tmp_path / "watchkeeper.yaml").write_text(text[0] + "notify:" + text[2].partition("notify:")[2])
    assert len(load(tmp_path / "watchkeeper.yaml").services["fraud"].watches) >= 3


def test_a_url_that_no_engine_takes_is_refused_at_start_up(tmp_path):
    for url, words in (("postgresql://h/d?tabel=x", "no option tabel"), ("delta:t?version=x", "no version"), ("spark:", "names no table")):
        (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url=url))
        with pytest.raises(ConfigError, match=words):
            load(tmp_path / "watchkeeper.yaml")


def test_postgres_and_delta_stream_whatever_a_check_needs(tmp_path):
    for url in ("postgresql://db.internal/ml?table=logs.predictions", "delta:lake/predictions?version=3", "duckdb:w.duckdb?table=x"):
        (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url=url))
        load(tmp_path / "watchkeeper.yaml")


DRIFT = """
import json, sys
from datetime import timedelta
from agent import Locator
from agent.perform import perform
from tests.logs import START, OnlyCounts, opened, write
folder, log = sys.argv[1], {"time": {"column": "at", "tz": "UTC"}, "features": ["amount", "country"]}
targets = {
    "live": Locator("s", "live", "spark:live.parquet", log, folder=folder),
    "reference": Locator("s", "reference", "parquet:reference.parquet", {}, folder=folder),
}
memory, told = None, []
for hour in range(3):
    window = [(START + timedelta(hours=more)).isoformat() for more in (hour, hour + 1)]
    job = {"check": "drift.features", "locators": targets, "parameters": {}, "window": window, "run_length": 2160.0, "memory": memory}
    verdict = perform(job)
    memory = verdict.memory
    told.append([verdict.status.value, verdict.reason])
rules = {"amount": {"low": -1, "high": 2, "outside": 0.1, "nulls": 0}, "country": {"categories": ["de"]}, "age": {}, "at": {"type": "text"}}
for engine in ("spark", "parquet"):
    at = Locator("s", "live", f"{engine}:live.parquet", log, folder=folder)
    for more in ({}, {"unique": [["amount"]]}):
        parameters = {"columns": rules, "volume": 2000, "freshness": 60, "closed": True, **more}
        job = {"check": "data.contract", "locators": {"live": at}, "parameters": parameters, "window": window}
        verdict = perform(job | {"now": (START + timedelta(hours=3)).isoformat()})
        told.append([verdict.status.value, verdict.reason, {name: [part.observed, part.limit, part.n] for name, part in verdict.parts.items()}])
for engine in ("spark", "parquet"):
    live = Locator("s", "live", f"{engine}:live.parquet", log, folder=folder)
    verdict = perform({"check": "drift.compare", "locators": targets | {"live": live}, "parameters": {}, "window": window})
    told.append([verdict.status.value, sorted(verdict.parts), verdict.parts["amount"].observed, verdict.parts["country"].observed])
print("answer", json.dumps(told))
"""


def test_drift_is_watched_and_compared_and_a_contract_held_where_the_rows_lie(tmp_path):
    """The engine's own library beside ours, as `pip install 'watchkeeper[spark]'` would have it."""
    need("java")
    (library,) = need("spark").parent.parent.glob("lib/python3*/site-packages")
    dice = np.random.default_rng(1)

    def rows(count, middle, hour):
        at = [START + timedelta(hours=hour + place / count) for place in range(count)]
        columns = {
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "amount": dice.normal(middle, size=count),
            "country": dice.choice(["de", "fr"], count),
        }
        return pa.table(columns)

    pyarrow.parquet.write_table(rows(20_000, 0, -10), tmp_path / "reference.parquet")
    pyarrow.parquet.write_table(pa.concat_tables([rows(1000, 0, 0), rows(1000, 0.5, 1), rows(1000, 0.5, 2)]), tmp_path / "live.parquet")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOUSE), str(library)])}
    done = subprocess.run([sys.executable, "-c", DRIFT, tmp_path], env=env, capture_output=True, text=True, timeout=300)
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("answer")).partition(" ")[2])
    assert [status for status, _ in told[:3]] == ["ok", "fail", "fail"]
    assert "amount moved up" in told[1][1]
    counted, named, seen, _ = told[3:7]
    assert counted == seen
    assert counted[0] == "fail"
    assert set(counted[2]) == {"volume", "age", "amount.range", "country.unseen", "at.type"}
    assert "could not tell: amount.unique cannot be told by counts" in named[1]
    cells, exact = told[7:]
    assert cells == [*exact[:2], pytest.approx(exact[2], abs=1 / 64), exact[3]]
    assert cells[0] == "fail"
