"""Broken data: the service is pointed back at the last version that keeps its contract, in a link, a view and a Delta table."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import Locator, config, verbs
from agent.errors import AnswerError, DataError, PlanError
from agent.targets import connect
from agent.targets._names import natural
from tests.fraud import fraud
from tests.plugin_box import install

WATCH = "data.contract"
GOOD, BROKEN = [1.0, 2.0, 3.0], [1.0, 200.0, None]


def now() -> str:
    """A little while ago, so that whatever is written now lies in the window of a look that was made already."""
    return (datetime.now(UTC) - timedelta(minutes=1)).isoformat()


@dataclass
class Linked:
    """Folders of JSON lines, and a link to one of them."""

    folder: Path
    data: str = "link:features/current"
    live: str = "jsonl:features/current/*.jsonl"

    def push(self, version: str, values: list) -> str:
        home = self.folder / "features" / version
        home.mkdir(parents=True)
        (home / "rows.jsonl").write_text("".join(json.dumps({"at": now(), "x": value}) + "\n" for value in values))
        link = self.folder / "features" / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(version)
        return version


@dataclass
class Viewed:
    """Tables of a SQLite file, and a view of one of them."""

    folder: Path
    data: str = "{url: 'view:features.db?view=features', among: v*}"
    live: str = "sqlite:features.db?table=features"

    def push(self, version: str, values: list) -> str:
        with closing(sqlite3.connect(self.folder / "features.db")) as con, con:
            con.execute(f"CREATE TABLE {version} (at TEXT, x REAL)")
            con.executemany(f"INSERT INTO {version} VALUES (?, ?)", [(now(), value) for value in values])
            con.execute("DROP VIEW IF EXISTS features")
            con.execute(f"CREATE VIEW features AS SELECT * FROM {version}")
        return version


@dataclass
class Lake:
    """A Delta table, written whole each time."""

    folder: Path
    data: str = "delta:lake"
    live: str = "delta:lake"
    pushed: int = -1

    def push(self, version: str, values: list) -> str:
        import deltalake
        import pyarrow as pa

        deltalake.write_deltalake(
            str(self.folder / "lake"), pa.table({"at": [now()] * len(values), "x": pa.array(values, pa.float64())}), mode="overwrite"
        )
        self.pushed += 1
        return str(self.pushed)


KINDS = [Linked, Viewed, Lake]


@contextmanager
def served(tmp_path, kind, mode="approve", more="", looked=True):
    """The service with three good versions of its data behind it, the third of which is read."""
    made = kind(tmp_path)
    versions = [made.push(f"v{n}", GOOD) for n in (8, 9, 10)]
    rule = "columns: {x: {low: 0, high: 16, nulls: 0}}"
    contract = f"      - {{check: {WATCH}, every: 10m, within: 30s, confirm: {{bad: 1, of: 1}}, with: {{{rule}}}}}\n{more}"
    with fraud(tmp_path) as desk:
        path = tmp_path / "watchkeeper.yaml"
        targets = f"      data: {made.data}\n      live: {{url: '{made.live}', time: {{column: at, tz: UTC}}}}\n"
        text = path.read_text().replace("    watches:\n", f"{targets}    watches:\n{contract}")
        path.write_text(text.replace("default: observe", f"default: {mode}"))
        desk.world.use(config.load(path))
        desk.see()
        assert not looked or desk.look(WATCH).status == "ok"
        yield desk, made, versions


def read(desk):
    with desk.world.connections(desk.world.service("fraud").targets["data"]) as data:
        return data.point.read()


@pytest.mark.parametrize("kind", KINDS)
def test_broken_data_is_quarantined_when_a_person_says_so(tmp_path, kind):
    with served(tmp_path, kind) as (desk, made, versions):
        broken = made.push("v11", BROKEN)
        assert desk.look(WATCH).status == "fail"
        waits = desk.respond()
        assert (waits.runbook, waits.state) == ("quarantine", "awaiting"), waits.said
        assert f"version {broken} of the data is read instead of {versions[-1]}" in waits.reason
        assert read(desk) == broken, "nothing moves before anybody has said yes"
        verbs.approve(desk.world, waits.id, "ada")
        done = desk.respond()
        assert done.state == "succeeded" and read(desk) == versions[-1], done.said
        assert [step.name for step in done.steps] == ["counterfactual", "point", "look"]
        first = desk.look(WATCH)
        assert first.status == "ok", first.reason


def test_versions_are_asked_in_turn_until_one_is_sound(tmp_path):
    with served(tmp_path, Lake) as (desk, made, versions):
        made.push("v11", BROKEN)
        made.push("v12", BROKEN)
        run = verbs.start(desk.world, "quarantine", "fraud", {"watch": WATCH}, "ada")
        done = desk.respond()
        assert (done.id, done.state, read(desk)) == (run.id, "succeeded", versions[-1]), done.said
        assert "x" in done.steps[0].said and f"version {versions[-1]} is ok" in done.steps[0].said


def test_where_no_version_is_better_nothing_is_moved(tmp_path):
    with served(tmp_path, Linked) as (desk, made, _):
        for n in range(11, 16):
            made.push(f"v{n}", BROKEN)
        verbs.start(desk.world, "quarantine", "fraud", {"watch": WATCH, "tries": 2}, "ada")
        done = desk.respond()
        assert done.state == "stopped" and "declined at counterfactual" in done.said and read(desk) == "v15"


def test_a_watch_that_looks_elsewhere_moves_nothing(tmp_path):
    bind = "{live: {url: 'jsonl:other.jsonl', time: {column: at, tz: UTC}}}"
    elsewhere = f"      - {{check: {WATCH}, name: other, every: 10m, within: 30s, bind: {bind}}}\n"
    (tmp_path / "other.jsonl").write_text(json.dumps({"at": now(), "x": 1}) + "\n")
    with served(tmp_path, Linked, more=elsewhere) as (desk, _, _):
        verbs.start(desk.world, "quarantine", "fraud", {"watch": "other"}, "ada")
        done = desk.respond()
        assert done.state == "stopped" and "nothing that is read through the data target" in done.said and read(desk) == "v10"


def test_old_rows_are_judged_as_of_the_last_good_look_and_not_as_stale(tmp_path):
    with served(tmp_path, Linked) as (desk, made, _):
        path = tmp_path / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("with: {columns: {x:", "with: {freshness: 10m, columns: {x:"))
        desk.world.use(config.load(path))
        assert desk.look(WATCH).status == "ok"
        desk.later(3 * 3600)
        made.push("v11", [])
        (tmp_path / "features" / "v11" / "rows.jsonl").write_text(json.dumps({"at": desk.world.clock().isoformat(), "x": 99.0}) + "\n")
        found = desk.look(WATCH)
        assert found.status == "fail" and "99" in found.reason
        waits = desk.respond()
        assert waits.state == "awaiting", waits.said
        verbs.approve(desk.world, waits.id, "ada")
        done = desk.respond()
        assert done.state == "succeeded" and read(desk) == "v10", done.said


def test_a_drill_points_and_points_back_and_lets_broken_data_be_quarantined_by_itself(tmp_path):
    with served(tmp_path, Lake, mode="auto") as (desk, made, versions):
        verbs.start(desk.world, "quarantine", "fraud", {"watch": WATCH}, "ada", drill=True)
        drilled = desk.respond()
        assert drilled.state == "succeeded" and read(desk) == versions[-1], drilled.said
        made.pushed += 2  # a drill leaves two versions in the table's history: there, and back
        desk.see()
        made.push("v11", BROKEN)
        assert desk.look(WATCH).status == "fail"
        done = desk.respond()
        assert (done.state, done.by, done.approved_by) == ("succeeded", "watchkeeper", ()), done.said
        assert read(desk) == versions[-1]


BROKEN_RULE = """
    from agent import Verdict, check, fail

    @check(pillar="data", asks="Is it broken?", cause="data", exact=True)
    def rule() -> Verdict:
        \"\"\"It is.\"\"\"
        return fail("a rule is broken")
"""


def test_a_service_whose_data_cannot_be_pointed_is_promised_no_quarantine(tmp_path):
    with install(tmp_path, {"box": BROKEN_RULE}), fraud(tmp_path, more="      - {check: box.rule, every: 10m}\n") as desk:
        assert desk.look("box.rule").status == "fail"
        assert desk.respond() is None and any("no runbook answers the cause 'data'" in said for said in desk.events("incident.suggestion"))


def test_what_cannot_be_done_is_refused_while_planning(tmp_path):
    with served(tmp_path, Linked, looked=False) as (desk, _, _):
        for given, said in (
            ({}, "needs a watch"),
            ({"watch": WATCH, "to": "v10"}, "reads that version already"),
            ({"watch": WATCH, "to": "v99"}, "no version v99"),
        ):
            with pytest.raises(PlanError, match=said):
                verbs.start(desk.world, "quarantine", "fraud", given, "ada", dry_run=True)


# The adapters


def at(folder, url, **options):
    return connect(Locator("fraud", "data", url, options, folder=str(folder)))


@pytest.mark.parametrize("kind", KINDS)
def test_versions_come_oldest_first_and_a_move_takes_effect_only_from_where_it_was_seen(tmp_path, kind):
    made = kind(tmp_path)
    versions = [made.push(f"v{n}", GOOD) for n in (8, 9, 10)]
    data = (
        at(tmp_path, "delta:lake")
        if kind is Lake
        else at(tmp_path, made.data)
        if kind is Linked
        else at(tmp_path, "view:features.db?view=features", among="v*")
    )
    assert data.versions() == versions and data.point.read() == versions[2]
    data.point.write(versions[0], versions[2])
    assert data.point.read() == versions[0] and data.versions() == versions
    with pytest.raises(AnswerError, match="somebody else moved it"):
        data.point.write(versions[1], versions[2])
    assert data.point.read() == versions[0]


@pytest.mark.parametrize("name", ["../../etc", "v99", "", ".", "current"])
def test_a_link_is_moved_only_to_what_lies_beside_what_it_points_at(tmp_path, name):
    made = Linked(tmp_path)
    made.push("v1", GOOD)
    with pytest.raises((DataError, ValueError)):
        at(tmp_path, made.data).point.write(name, "v1")
    assert (tmp_path / "features" / "current").readlink() == Path("v1")


def test_a_link_to_a_file_is_pointed_at_files_of_its_kind(tmp_path):
    for name in ("f-9.csv", "f-10.csv", "notes.txt", ".hidden.csv"):
        (tmp_path / name).write_text("x\n1\n")
    (tmp_path / "now.csv").symlink_to("f-10.csv")
    data = at(tmp_path, "link:now.csv")
    assert data.versions() == ["f-9.csv", "f-10.csv"]
    seen = data.seen(Locator("fraud", "live", "csv:now.csv", folder=str(tmp_path)), "f-9.csv")
    assert seen.url == f"csv:{tmp_path}/f-9.csv"
    assert data.seen(Locator("fraud", "live", "csv:f-10.csv", folder=str(tmp_path)), "f-9.csv") is None


def test_what_is_no_link_and_no_plain_view_is_said_to_be_none(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(DataError, match="is no symbolic link"):
        at(tmp_path, "link:plain").versions()
    (tmp_path / "nowhere").symlink_to("gone/v1")
    with pytest.raises(DataError, match="cannot be listed"):
        at(tmp_path, "link:nowhere").versions()
    with closing(sqlite3.connect(tmp_path / "features.db")) as con, con:
        con.execute("CREATE TABLE v1 (x)")
        con.execute("CREATE VIEW features AS SELECT x + 1 AS x FROM v1")
    data = at(tmp_path, "view:features.db?view=features", among="v*")
    with pytest.raises(AnswerError, match="more than one whole table"):
        data.point.read()
    with pytest.raises(DataError, match="no file"):
        at(tmp_path, "view:gone.db?view=features", among="v*").versions()


def test_names_are_ordered_as_people_count():
    assert sorted(["v10", "v9", "2026-2-1", "2026-11-01", "a"], key=natural) == ["2026-2-1", "2026-11-01", "a", "v9", "v10"]
