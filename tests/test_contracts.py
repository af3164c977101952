"""`watchkeeper contract` as a pipeline uses it: files, exit codes, what is printed; and tables named by plain paths."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.errors import ConfigError
from agent.targets import at
from tests.conftest import HOUSE
from tests.logs import FILES, log_rows, write

TIME = ("--time", "at", "--tz", "UTC")
NOW = ("--now", "2026-03-29T00:00:41Z")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the usual log as Parquet and the contract made from it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "parquet", log_rows())
    said("infer", "log.parquet", *TIME, "--out", "contract.yaml")
    return tmp_path


def said(*words, code=0):
    done = CliRunner().invoke(main, ["contract", *words])
    assert done.exit_code == code, done.output
    return done.output


def rewritten(folder, **columns):
    write(folder, "parquet", [row | {name: made(n) for name, made in columns.items()} for n, row in enumerate(log_rows())])


def test_a_process_ends_with_0_1_2_or_3(tmp_path):
    def ended(*words):
        env = {**os.environ, "PYTHONPATH": str(HOUSE), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", "contract", *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    write(tmp_path, "parquet", log_rows())
    assert ended("infer", "log.parquet", "--out", "contract.yaml") == (0, "40 rows of 7 columns written as a contract: contract.yaml\n")
    assert ended("check", "log.parquet", "--contract", "contract.yaml") == (0, "ok  log.parquet: 40 rows keep the contract of 7 columns\n")
    rewritten(tmp_path, score=lambda n: 7.5)
    assert ended("check", "log.parquet", "--contract", "contract.yaml")[0] == 1
    (tmp_path / "contract.yaml").write_text("columns:\n  score: {lowest: 0}\n")
    assert ended("check", "log.parquet", "--contract", "contract.yaml")[0] == 2
    (tmp_path / "contract.yaml").write_text("{}\n")
    assert ended("check", "gone.parquet", "--contract", "contract.yaml")[0] == 3


def test_broken_rules_are_a_table_with_hashed_ids(desk):
    rewritten(desk, score=lambda n: 7.5 if n == 4 else 0.5, prediction=lambda n: 9 if n < 2 else 0)
    text = said("check", "log.parquet", "--contract", "contract.yaml", *TIME, *NOW, "--id", "request_id", code=1)
    first, head, *rows = text.splitlines()
    assert first.startswith("fail  log.parquet: 2 rules broken in 40 rows: prediction is none of its 3 categories in 2 of 40 rows")
    assert head.split() == ["rule", "observed", "limit", "rows", "why"]
    assert [row.split()[:4] for row in rows[:2]] == [["prediction.unseen", "0.05", "0", "2"], ["score.range", "0.025", "0", "1"]]
    assert len(rows[2].split()) == 3  # the rule, and the hashes of its two rows


def test_json_has_every_number(desk):
    rewritten(desk, score=lambda n: 7.5)
    told = json.loads(said("check", "log.parquet", "--contract", "contract.yaml", *TIME, *NOW, "--json", code=1))
    assert (told["status"], told["rows"], told["contract"]) == ("fail", 40, "contract.yaml")
    (one,) = told["broken"]
    assert (one["rule"], one["observed"], one["limit"], one["rows"]) == ("score.range", 1.0, 0.0, 40)


def test_a_contract_that_is_wrong_says_where_and_what_was_meant(desk):
    (desk / "contract.yaml").write_text(
        "columns:\n  score: {low: 1, high: 0}\n  code: {pattern: '['}\n  id: {uniqe: true}\nvolumes: 3\nfreshness: 5\n"
    )
    lines = said("check", "log.parquet", "--contract", "contract.yaml", code=2).splitlines()
    assert lines == [
        "error: contract.yaml:2:10 columns.score: low is above high, so that no value would do",
        "error: contract.yaml:3:9 columns.code: the pattern does not compile: unterminated character set at position 0",
        "error: contract.yaml:4:15 columns.id.uniqe: is no key that is known here",
        "error: contract.yaml:5:1 volumes: data.contract has no parameter 'volumes'; did you mean 'volume'?",
        "error: contract.yaml:6:12 freshness: must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not the number 5",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "contract.yaml:1:1: is empty; a contract has at least `columns:`"),
        ("- a\n", "contract.yaml:1:1: is a list; a contract is a mapping with `columns:`"),
        ("columns: [\n", "is not YAML"),
        ("columns: {a: {}, a: {}}\n", "is already defined"),
        ("columns: ${NOT_THERE_AT_ALL}\n", "the environment has no NOT_THERE_AT_ALL"),
    ],
)
def test_a_file_that_is_no_contract_is_told_as_a_configuration_is(desk, text, says):
    (desk / "contract.yaml").write_text(text)
    assert says in said("check", "log.parquet", "--contract", "contract.yaml", code=2)


def test_a_missing_contract_a_folder_and_an_unknown_table_are_mistakes_of_use(desk):
    assert "no such file" in said("check", "log.parquet", "--contract", "none.yaml", code=2)
    assert "is a folder" in said("check", "log.parquet", "--contract", ".", code=2)
    assert "no scheme and no suffix" in said("check", "log.txt", "--contract", "contract.yaml", code=2)
    assert "no adapter speaks 'ftp'" in said("check", "ftp://h/log", "--contract", "contract.yaml", code=2)
    assert "name the column with --time" in said("infer", "log.parquet", "--tz", "UTC", code=2)
    assert "declare the table's time" in said("check", "log.parquet", "--contract", "contract.yaml", code=2)


def test_what_cannot_be_read_or_is_empty_is_not_good_and_not_bad(desk):
    (desk / "contract.yaml").write_text("columns: {score: {nulls: 0}}\n")
    (desk / "cut.parquet").write_bytes((desk / "log.parquet").read_bytes()[:-9])
    assert "cannot be read" in said("check", "cut.parquet", "--contract", "contract.yaml", code=3)
    pyarrow.parquet.write_table(pa.table({"score": pa.array([], pa.float64())}), desk / "none.parquet")
    assert said("check", "none.parquet", "--contract", "contract.yaml", code=3) == "nodata  none.parquet: 0 rows; 1 are needed\n"
    assert "nothing is known of them" in said("infer", "none.parquet", code=3)
    assert json.loads(said("infer", "none.parquet", "--json", code=3))["status"] == "nodata"


def test_a_file_that_is_there_is_left_alone(desk):
    before = (desk / "contract.yaml").read_text()
    assert "exists already" in said("infer", "log.parquet", "--out", "contract.yaml", code=2)
    assert (desk / "contract.yaml").read_text() == before
    assert "cannot be written" in said("infer", "log.parquet", "--out", "none/contract.yaml", code=2)


def test_it_prints_the_contract_where_no_file_is_named(desk):
    assert said("infer", "log.parquet", *TIME) == (desk / "contract.yaml").read_text()
    assert json.loads(said("infer", "log.parquet", *TIME, "--json"))["contract"] == (desk / "contract.yaml").read_text()


def test_parents_are_a_table_of_their_own(desk):
    (desk / "contract.yaml").write_text("columns: {prediction: {parent: class}}\n")
    (desk / "classes.csv").write_text("class\n0\n1\n")
    told = said("check", "log.parquet", "--contract", "contract.yaml", "--parents", "classes.csv", code=1)
    assert "prediction is not in class of its parents in 13 of 40 rows" in told
    assert "none is bound" in said("check", "log.parquet", "--contract", "contract.yaml", code=2)


# Tables by plain paths


@pytest.mark.parametrize("form", FILES)
def test_the_suffix_of_a_path_says_what_a_table_is(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, form, log_rows())
    assert at(f"log.{form}").url == f"{form}:log.{form}"
    assert at(str(tmp_path / f"log.{form}")).url == f"{form}:{tmp_path}/log.{form}"
    assert "40 rows" in said("infer", f"log.{form}", "--out", "contract.yaml")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("logs/*.parquet", "parquet:logs/*.parquet"),
        ("a.PQ", "parquet:a.PQ"),
        ("e.ndjson", "jsonl:e.ndjson"),
        ("p.db?table=log", "sqlite:p.db?table=log"),
        ("w.ddb", "duckdb:w.ddb"),
        ("csv:whatever.txt", "csv:whatever.txt"),
        ("sqlite:p.db?table=a.csv", "sqlite:p.db?table=a.csv"),
        ("spark://host/table", "spark://host/table"),
    ],
)
def test_a_url_is_left_as_it_is_and_a_path_gets_its_scheme(text, url):
    assert at(text).url == url
    assert (at(text).role, at(text).folder, at(text).options) == ("live", ".", {})


def test_a_folder_is_what_its_files_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "README").write_text("")
    with pytest.raises(ConfigError, match="no scheme and no suffix"):
        at("logs")
    write(tmp_path / "logs", "csv", log_rows())
    assert at("logs").url == "csv:logs"
    assert "40 rows" in said("infer", "logs", "--out", "contract.yaml")
