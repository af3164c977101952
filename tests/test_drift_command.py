"""`watchkeeper drift` as people use it: two files, no configuration, and an answer to be understood at three in the morning."""

import json
import os
import pty
import subprocess
from datetime import timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.commands import _ranked
from agent.commands.comparing import table
from tests.logs import START, write
from tests.servers.hostile import answer, heard, serving
from tests.test_cli import program

FORMS = ("parquet", "csv", "jsonl", "sqlite", "duckdb")


def rows(count, seed, shift=0.0, nulls=0.0, **more):
    rng = np.random.default_rng(seed)
    return [
        {
            "amount": float(rng.normal(shift)),
            "age": int(rng.integers(18, 90)),
            "city": str(rng.choice(["Łódź", "東京", "Paris"])),
            "income": None if rng.random() < nulls else float(rng.normal()),
            **{name: make(place) for name, make in more.items()},
        }
        for place in range(count)
    ]


def wk(*args, code=0):
    """What the command prints, run in this process: numpy and scipy take a second of CPU to start."""
    done = CliRunner().invoke(main, list(args), prog_name="watchkeeper")
    assert done.exit_code == code, f"{args} ended with {done.exit_code}, not {code}:\n{done.output}"
    return done.output


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Two folders, and in each a table; what `write` made of them, and where."""
    monkeypatch.chdir(tmp_path)

    def put(current, reference=None, form="parquet"):
        for name, found in (("train", reference or rows(900, 1)), ("live", current)):
            (tmp_path / name).mkdir(exist_ok=True)
            write(tmp_path / name, form, found)
        return f"train/log.{form}", f"live/log.{form}"

    put.folder = tmp_path
    return put


@pytest.mark.parametrize("form", FORMS)
def test_two_files_are_enough_and_what_drifted_comes_first(desk, form):
    told = json.loads(wk("drift", *desk(rows(600, 2, shift=1.0), form=form), "--json", code=1))
    assert (told["status"], told["reference"]) == ("fail", f"{form}:train/log.{form}")
    assert [line["name"] for line in told["comparisons"] if line["drifted"]] == ["amount"] == [told["comparisons"][0]["name"]]
    assert {line["name"] for line in told["comparisons"]} == {"amount", "age", "city", "income"}
    assert told["comparisons"][0]["distances"]["wasserstein_sd"] == pytest.approx(1.0, abs=0.15)
    assert not list(desk.folder.glob("*.db")), "nothing is remembered"


def test_the_answer_reads_as_a_sentence_a_table_and_what_could_not_be_seen(desk):
    said = wk("drift", *desk(rows(600, 2, shift=1.0, nulls=0.3, new=lambda place: 1.0)), "--html", "page.html", code=1)
    lines = said.splitlines()
    assert lines[0] == "DRIFT: 2 columns of 4 moved further than the limit"
    assert lines[2] == "  new: missing in the reference", "a column that came or went is told before any number"
    assert lines[4].split() == ["column", "how", "far", "it", "moved", "by", "(95", "%", "interval)", "limit", "p", "PSI", "nulls", "test"]
    assert [line.split()[0] for line in lines[5:7]] == ["amount", "income"]
    (income,) = (line for line in lines if line.startswith("  income"))
    assert "0 → 29 %" in income
    assert "At these sizes a shift below 0.17 cannot be called." in said
    assert "wrote page.html" in said
    assert (desk.folder / "page.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_no_drift_is_0_a_changed_table_1_and_nothing_to_compare_3(desk):
    assert wk("drift", *desk(rows(600, 2))).startswith("no drift: 4 columns compared, each within its limit\n")
    said = wk("drift", *desk(rows(600, 2, new=lambda place: 1.0)), code=1)
    assert said.startswith("no drift in the 4 columns compared, but the table itself changed\n")
    said = wk("drift", *desk(rows(20, 2)), "--html", "page.html", code=3)
    assert said.startswith("nodata: 20 live and 900 reference rows; 100 of each are needed\n")
    assert not (desk.folder / "page.html").exists()
    assert "'nobody' is in neither" in wk("drift", *desk(rows(600, 2)), "--columns", "nobody", code=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train/log.parquet", "nothing.parquet"), "there is no file nothing.parquet"),
        (("train/log.parquet", "live/none*.parquet"), "there is no file live/none*.parquet"),
        (("train/log.parquet", "elsewhere"), "no scheme and no suffix says what this table is"),
        (("train/log.parquet", "nosuch:live"), "no scheme and no suffix says what this table is"),
        (("train/log.parquet", "live/log.parquet", "--floor-number", "2"), "2.0 is not in the range"),
        (("train/log.parquet", "live/log.parquet", "--since", "2026-01-01"), "--since and --until need --time"),
        (("train/log.parquet", "live/log.parquet", "--time", "at", "--since", "noon"), "'noon' is no time"),
        (("train/log.parquet", "live/log.parquet", "--html", "no/such/folder.html"), "cannot be written"),
        (("train/log.parquet",), "Missing argument"),
    ],
)
def test_bad_arguments_are_2_and_say_what_is_wrong(desk, words, said):
    desk(rows(200, 2))
    assert said in " ".join(wk("drift", *words, code=2).split())


def test_settings_are_those_of_the_check(desk):
    files = desk(rows(900, 2, shift=0.25, kind=lambda place: place % 3), rows(900, 1, kind=lambda place: place % 4))
    told = json.loads(wk("drift", *files, "--json", "--nominal", "kind", "--columns", "k*", "--columns", "amount", code=1))
    assert {line["name"]: (line["how"].split(",")[0], line["drifted"]) for line in told["comparisons"]} == {
        "kind": ("chi-square", True),
        "amount": ("Kolmogorov-Smirnov", False),
    }
    raised = wk("drift", *files, "--columns", "amount", "--floor-number", "0.01", "--brief", "--json", code=1)
    (line,) = json.loads(raised)["comparisons"]
    assert (line["drifted"], line["limit"], line["distances"]["wasserstein"]) == (True, 0.01, None)


@pytest.mark.parametrize("form", FORMS)
def test_a_stretch_of_time_can_be_looked_at(desk, form):
    def at(place):
        return (START + timedelta(minutes=place)).isoformat()

    files = desk(rows(300, 2, at=at) + rows(300, 3, shift=2.0, at=lambda place: at(place + 300)), rows(900, 1, at=at), form)
    noon = ("--time", "at", "--columns", "amount", "--json")
    early = json.loads(wk("drift", *files, *noon, "--until", "2026-03-29T05:00"))
    assert early["comparisons"][0]["n"] == 300
    late = json.loads(wk("drift", *files, *noon, "--since", "2026-03-29T07:00:00+02:00", code=1))
    assert (late["comparisons"][0]["n"], late["status"]) == (300, "fail")


def test_a_pattern_of_files_and_a_url_are_tables_too(desk):
    train, _ = desk(rows(600, 2))
    wk("drift", f"parquet:{train}", "live/*.parquet")
    desk(rows(600, 2), form="sqlite")
    wk("drift", "train/log.sqlite?table=log", "sqlite:live/log.sqlite?table=log")


def test_a_bare_path_says_its_scheme_by_its_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.PARQUET", "a.csv.gz", "b.v2.csv", "a.ndjson", "a.db", "a.duckdb", "x:y.csv"):
        (tmp_path / name).touch()
    assert [table(name).partition(":")[0] for name in ("a.PARQUET", "a.csv.gz", "b.v2.csv", "a.ndjson", "a.db", "a.duckdb")] == [
        "parquet",
        "csv",
        "csv",
        "jsonl",
        "sqlite",
        "duckdb",
    ]
    assert table("parquet:none.parquet") == "parquet:none.parquet", "a URL is the adapter's to judge"
    assert table("x:y.csv") == "csv:x:y.csv", "unless there is a file of that name"


def on_a_terminal(folder, *words, columns="80"):
    """What a person sees, in a terminal so many columns wide; stderr apart."""
    master, slave = pty.openpty()
    how = program(*words, folder=folder, COLUMNS=columns, TERM="xterm-256color")
    process = subprocess.Popen(how["args"], cwd=folder, env=how["env"] | {"NO_COLOR": ""}, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    seen = b""
    try:
        while part := os.read(master, 65536):
            seen += part
    except OSError:
        pass  # the other end is closed
    errors = process.communicate()[1].decode()
    os.close(master)
    return seen.decode(), errors


@pytest.mark.parametrize("columns", [80, 110, 140])
def test_twenty_columns_are_one_screen_and_no_number_is_cut(desk, columns):
    wide = {f"a_long_name_of_a_feature_{n}": lambda place: float(place % 50) for n in range(20)}
    seen, errors = on_a_terminal(desk.folder, "drift", *desk(rows(600, 2, shift=1.0, **wide), rows(900, 1, **wide)), columns=str(columns))
    plain = _without_colour(seen).splitlines()
    assert len(plain) <= 30
    assert max(map(len, plain)) <= columns or plain[1].startswith("  parquet:")
    (moved,) = (line for line in plain if line.startswith("  amount"))
    assert "━│━" in moved and "(0." in moved and moved.split(")")[1].split()[0] != "", moved
    assert "and 4 more, all within their limits" in _without_colour(seen)
    assert not errors, "no bar of progress where stderr is no terminal"


def _without_colour(text):
    import re

    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


def test_the_solid_part_of_a_bar_passes_the_mark_just_when_the_effect_passes_its_limit():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        low, high = sorted(rng.random(2))
        limit = float(rng.choice([0.0, 0.02, 0.1, rng.random()]))
        top = max(high, limit, rng.random())
        bar = _ranked._bar({"interval": [low, high], "limit": limit, "drifted": True}, top, int(rng.choice([12, 20]))).plain
        assert bar.count("│") == 1
        assert ("━" in bar.partition("│")[2]) == (low > limit)


@pytest.mark.parametrize("words", [(), ("--json",), ("--debug",)])
def test_a_secret_in_a_url_is_printed_by_nobody_whoever_says_it(desk, words):
    """Three who say it: no adapter, an adapter, and a server that echoes what it is asked."""
    train, _ = desk(rows(200, 2))
    asked = []

    def echo(one):
        asked.append(heard(one))
        one.sendall(answer(asked[-1], "400 Bad Request"))

    first, more = (("--debug",), ()) if "--debug" in words else ((), words)
    with serving(echo) as server:
        for url in (
            "mysql://root:hunt%21er2@db.internal/ml",
            "spark:?table=x&access_token=hunt!er2",
            f"trino+{server.url}/hive/ml/hunt%21er2?password=hunt%21er2",
        ):
            said = CliRunner().invoke(main, [*first, "drift", train, url, *more], prog_name="watchkeeper")
            assert said.exit_code in (2, 3)
            assert "***" in said.output
            assert "er2" not in said.output
    assert b"hunt!er2" in asked[0], "it was shown, and echoed"


def test_what_a_table_says_cannot_move_the_cursor(desk):
    hostile = "evil\x1b[2J\nname"
    said = wk("drift", *desk(rows(200, 2, **{hostile: lambda place: float(place)}), rows(200, 1)), code=1)
    assert "\x1b" not in said
    assert "evil\N{REPLACEMENT CHARACTER}[2J" in said
