"""Steps of a team's own: requests to a real server, real commands, real databases; what is looked at, what is believed, what is never repeated."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent import actions, config, preview, runs, show, verbs
from agent.config import steps
from agent.errors import PlanError
from agent.store import Store
from tests.fraud import fraud
from tests.servers._loopback import FAULTS, Loopback
from tests.test_steps import latest, planned

SECRET = "s3cr3t-0f-the-t3st"
BOOK = """
runbooks:
  own:
    asks: Does it do what the test says?
    steps:
"""


class Jobs(Loopback):
    """A server of jobs: what was asked of it, what it holds, and what it answers instead."""

    def __init__(self) -> None:
        self.asked, self.held, self.mood, self.seen = [], {}, {}, []
        super().__init__(self._answer)

    def _answer(self, method, path, body):
        if method != "GET":
            self.asked.append((method, path, body))
        status = self.mood.get(method)
        if status in (None, "late"):
            self._take(method, path.partition("?")[0], body)
        if status is not None:
            return (500, {"error": "late"}) if status == "late" else (status, {"error": f"it says {SECRET}"})
        if method == "GET" and path not in self.held:
            return 404, {"error": "no such job"}
        return 200, {"job": {"id": 7, "path": path}, **({"state": self.held[path]} if path in self.held else {})}

    def _take(self, method, path, body):
        if method == "DELETE":
            self.held.pop(path, None)
        elif method != "GET":
            self.held[path] = (body or {}).get("state", "there")

    def close(self) -> None:
        self.stop()


@contextmanager
def desk_with(tmp_path, text, more="", books=""):
    """The fraud service, the server of jobs, and a runbook `own` of these steps; {jobs} in them is the server's address."""
    with closing(Jobs()) as jobs, fraud(tmp_path, more=more) as desk:
        path = tmp_path / "watchkeeper.yaml"
        steps_text = "".join(f"      {line}\n" for line in text.replace("{jobs}", jobs.address).replace("{here}", str(tmp_path)).strip().splitlines())
        path.write_text(path.read_text() + BOOK + steps_text + books)
        desk.world.use(config.load(path))
        yield desk, jobs


def carried(desk, **given):
    run = verbs.start(desk.world, "own", "fraud", given, "ada")
    desk.respond()
    return latest(desk, run.id)


# Requests


def test_a_request_is_sent_once_and_what_came_back_can_be_used_by_the_next_step(tmp_path):
    text = """
- http: {post: "{jobs}/jobs", json: {model: fraud}, keep: {id: job.id}}
  name: job
- http: {put: "{jobs}/jobs", path: [{from: job.id}, a/b], query: {by: {from: job.status}}, body: '{"state": "on"}'}
"""
    with desk_with(tmp_path, text) as (desk, jobs):
        run = carried(desk)
        assert run.state == "succeeded" and run.steps[0].output == {"status": 200, "id": 7}, run.said
        assert jobs.asked == [("POST", "/jobs", {"model": "fraud"}), ("PUT", "/jobs/7/a%2Fb?by=200", {"state": "on"})]


@pytest.mark.parametrize(("status", "state", "said"), [(409, "compensated", "answered 409"), (500, "stuck", "may or may not have happened")])
def test_a_post_that_was_refused_is_over_and_one_that_broke_is_for_a_person(tmp_path, status, state, said):
    with desk_with(tmp_path, '- http: {post: "{jobs}/jobs"}') as (desk, jobs):
        jobs.mood["POST"] = status
        run = carried(desk)
        assert (run.state, len(jobs.asked)) == (state, 1) and said in run.said
        with desk.world.store.read() as ledger:
            assert any(letter["body"]["severity"] == "page" for letter in ledger.letters())


def test_a_put_may_be_repeated_and_is_three_times_at_most(tmp_path):
    with desk_with(tmp_path, '- http: {put: "{jobs}/jobs/7"}') as (desk, jobs):
        jobs.mood["PUT"] = 500
        run = carried(desk)
        assert run.state == "stuck" and "it cannot be undone" in run.said and len(jobs.asked) == 3


def test_a_server_that_is_not_there_was_not_asked(tmp_path):
    with desk_with(tmp_path, '- http: {post: "http://127.0.0.1:9/jobs"}') as (desk, _):
        run = carried(desk)
        assert run.state == "compensated" and "no connection" in run.said and run.steps[-1].said == "it stands as it did before"


LOOKED = """
- http:
    post: "{jobs}/jobs/7"
    json: {state: ready}
    look: {get: "{jobs}/jobs/7", expect: {state: ready}}
    undo: {delete: "{jobs}/jobs/7"}
  within: 2s
- http: {post: "{jobs}/last", expect: 201}
"""


def test_only_the_look_is_believed_and_what_is_so_already_is_not_done_again(tmp_path):
    with desk_with(tmp_path, LOOKED.rpartition("- http")[0]) as (desk, jobs):
        jobs.mood["POST"] = "late"  # it takes the job, and answers 500
        assert carried(desk).state == "succeeded" and len(jobs.asked) == 1
        jobs.mood.clear()
        assert carried(desk).state == "succeeded" and len(jobs.asked) == 1, "it is so already"


def test_what_was_taken_gets_until_the_end_of_its_time_to_show(tmp_path):
    with desk_with(tmp_path, LOOKED.rpartition("- http")[0].replace("json: {state: ready}", "json: {state: starting}")) as (desk, jobs):
        run = carried(desk)
        assert run.state == "compensated" and "not to be seen yet" in run.said and len(jobs.asked) == 1
        assert jobs.held == {"/jobs/7": "starting"} and run.steps[-1].state == "undone", (
            "the look says that it is not there, so nothing is taken back"
        )


def test_what_was_done_is_taken_back_and_looked_at(tmp_path):
    with desk_with(tmp_path, LOOKED) as (desk, jobs):
        run = carried(desk)
        assert run.state == "stuck" and "may or may not" in run.said, "the last step answered 200, not 201: nobody knows"
    (tmp_path / "second").mkdir()
    with desk_with(tmp_path / "second", LOOKED.replace("expect: 201", "path: [no]")) as (desk, jobs):
        jobs._take = lambda method, path, body, take=jobs._take: None if path == "/last/no" else take(method, path, body)
        jobs.mood = _Refusing("/last/no", jobs)
        run = carried(desk)
        assert run.state == "compensated" and jobs.held == {} and [one[0] for one in jobs.asked] == ["POST", "POST", "DELETE"], run.said
        assert {row.name: row.state for row in run.steps if row.undo} == {"undo http-2": "undone", "undo http-1": "undone"}


class _Refusing(dict):
    """Answers 409 to what was asked last at one path."""

    def __init__(self, path, jobs):
        self.path, self.jobs = path, jobs

    def get(self, method, default=None):
        return 409 if method == "POST" and self.jobs.asked[-1][1] == self.path else default


def test_each_step_is_taken_back_by_itself_the_newest_first(tmp_path):
    text = """
- http: {put: "{jobs}/a", undo: {delete: "{jobs}/a"}}
- http: {put: "{jobs}/b", undo: {delete: "{jobs}/b"}}
- command: [sh, -c, "exit 75"]
"""
    with desk_with(tmp_path, text) as (desk, jobs):
        run = carried(desk)
        assert run.state == "compensated" and [one[:2] for one in jobs.asked[2:]] == [("DELETE", "/b"), ("DELETE", "/a")], run.said


# Secrets


def test_a_secret_is_sent_and_stands_in_no_plan_no_record_and_no_log(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("WK_OWN", SECRET)
    text = """
- http: {put: "{jobs}/${WK_OWN}/x", headers: {Authorization: "Bearer ${WK_OWN}"}, keep: {path: job.path}}
  name: sent
- command: {ensure: [sh, -c, 'echo "{\\"a\\": \\"$TOKEN\\"}"; echo $TOKEN >&2'], env: {TOKEN: "x${WK_OWN}"}, keep: {a: a}}
- http: {post: "{jobs}/refused", headers: {Authorization: "Bearer ${WK_OWN}"}}
- command: {run: [sh, -c, 'echo "it is $TOKEN" >&2; exit 3'], env: {TOKEN: "${WK_OWN}"}}
  otherwise: go on
"""
    with desk_with(tmp_path, text) as (desk, jobs):
        plan = verbs.start(desk.world, "own", "fraud", {}, "ada", dry_run=True)
        run = carried(desk)
        assert jobs.asked[0][1] == f"/{SECRET}/x" and run.state == "succeeded"
        assert run.steps[0].output["path"] == "/${WK_OWN}/x" and run.steps[1].output["a"] == "x${WK_OWN}"
        jobs.mood["PUT"] = 400
        again = carried(desk)
        assert again.state in ("compensated", "stuck") and "it says ${WK_OWN}" in again.said
        shown = [show.plan(preview.plan_json(plan)), show.run(runs.run_json(run)), json.dumps(desk.world.config.describe(), default=str)]
        kept = b"".join(path.read_bytes() for path in desk.world.store.path.parent.glob(f"{desk.world.store.path.name}*"))
        assert "${WK_OWN}" in shown[0]
    heard = capsys.readouterr()
    for text in (*shown, heard.out, heard.err, caplog.text):
        assert SECRET not in text
    assert SECRET.encode() not in kept


def test_what_an_earlier_step_gave_is_never_filled_in(tmp_path, monkeypatch):
    """A server that answers `${WK_OWN}` must not be sent what that stands for."""
    monkeypatch.setenv("WK_OWN", SECRET)
    text = """
- command: [echo, "$${WK_OWN}"]
  name: said
- http: {post: "{jobs}/a", path: [{from: said.printed}], json: {all: {from: said.printed}}, headers: {X: "$${WK_OWN}"}}
"""
    with desk_with(tmp_path, text) as (desk, jobs):
        assert carried(desk).state == "succeeded"
        assert SECRET not in repr(jobs.asked) and jobs.asked[0][2] == {"all": "${WK_OWN}"}


# Commands


def test_a_command_has_no_shell_and_sees_only_what_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("WK_OWN", SECRET)
    monkeypatch.setenv("WK_SEEN", "seen")
    text = """
- {command: {run: [env], inherit: [WK_SEEN], env: {GIVEN: "1"}}, name: seen}
- {command: [echo, "a; rm -rf $HOME", "*"], name: said}
"""
    with desk_with(tmp_path, text) as (desk, _):
        run = carried(desk)
        names = {line.partition("=")[0] for line in run.steps[0].output["printed"].splitlines()}
        assert {"GIVEN", "WK_SEEN", "PATH"} <= names and "WK_OWN" not in names
        assert run.steps[1].output["printed"] == "a; rm -rf $HOME *"


ENDS = {
    "[sh, -c, 'echo x >> did; exit 1']": ("stuck", 1),
    "[sh, -c, 'echo x >> did; exit 75']": ("compensated", 1),
    "{ensure: [sh, -c, 'echo x >> did; exit 1'], undo: [rm, did]}": ("compensated", 0),
    "{run: [sh, -c, 'echo x >> did; exit 1'], look: [test, -e, did]}": ("succeeded", 1),
    "{run: [sh, -c, 'exit 1'], look: [test, -e, did]}": ("stuck", 0),
    "[sh, -c, 'echo x >> did; sleep 60']": ("stuck", 1),
    "[./not-there]": ("compensated", 0),
}


def test_how_a_command_ends_says_no_more_than_it_can(tmp_path):
    with desk_with(tmp_path, "- {command: [echo], within: 500ms}") as (desk, _):
        path, did = tmp_path / "watchkeeper.yaml", tmp_path / "did"
        before = path.read_text()
        for step, ended in ENDS.items():
            did.unlink(missing_ok=True)
            path.write_text(before.replace("command: [echo]", f"command: {step}"))
            desk.world.use(config.load(path))
            run = carried(desk)
            assert (run.state, len(did.read_text().split()) if did.exists() else 0) == ended, f"{step}: {run.said}"


CRASHING = "echo x >> {did}; [ -e {did}.crashed ] || {{ touch {did}.crashed; kill -9 $PPID; }}"


def test_killed_between_the_effect_and_its_record_nothing_that_must_not_be_is_repeated(tmp_path):
    looked, ensured, once = (CRASHING.format(did=did) for did in ("looked", "ensured", "once"))
    text = f"""
- command: {{run: [sh, -c, '{looked}'], look: [test, -e, looked]}}
- command: {{ensure: [sh, -c, '{ensured}']}}
- command: [sh, -c, '{once}']
- command: [touch, later]
"""
    with desk_with(tmp_path, text) as (desk, _):
        run = verbs.start(desk.world, "own", "fraud", {}, "ada")
        desk.world.store.close()
        drive = [sys.executable, "-m", "tests.crash", str(tmp_path / "watchkeeper.yaml"), "never", "0"]
        ends = [subprocess.run(drive, timeout=90, capture_output=True).returncode for _ in range(4)]
        assert ends == [-signal.SIGKILL] * 3 + [0]
        with Store.open(desk.world.store.path).read() as ledger:
            ended = ledger.run(run.id)
            assert any(letter["body"]["severity"] == "page" and "stuck" in letter["key"] for letter in ledger.letters())
    assert {did: len((tmp_path / did).read_text().split()) for did in ("looked", "ensured", "once")} == {"looked": 1, "ensured": 2, "once": 1}
    assert ended.state == "stuck" and not (tmp_path / "later").exists()
    assert "nobody wrote down what came of it" in ended.said and "may or may not have happened" in ended.said


# Statements


def _table(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("CREATE TABLE rows (id INTEGER, state TEXT)")
        con.executemany("INSERT INTO rows VALUES (?, ?)", [(1, "new"), (2, "new"), (3, "old")])
    return path


def _states(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as con:
        return [state for (state,) in con.execute("SELECT state FROM rows ORDER BY id")]


@contextmanager
def database(tmp_path, text, url="sqlite:rows.db?table=rows", auth=""):
    with desk_with(tmp_path, "- wait: 1ms") as (desk, _):
        path = tmp_path / "watchkeeper.yaml"
        written = path.read_text().replace("      registry: folder:models\n", f"      registry: folder:models\n      live: {{url: '{url}'{auth}}}\n")
        path.write_text(written.replace("      - wait: 1ms\n", "".join(f"      {line}\n" for line in text.strip().splitlines())))
        desk.world.use(config.load(path))
        yield desk


SETS = "UPDATE rows SET state = :to WHERE state = :was RETURNING id"


def test_a_statement_is_carried_out_with_its_values_bound_and_taken_back(tmp_path):
    path = _table(tmp_path / "rows.db")
    text = f"""
- sql:
    target: live
    do: "{SETS}"
    with: {{to: "'; DROP TABLE rows; --", was: new}}
    rows: 2
    keep: {{first: id}}
    undo: "UPDATE rows SET state = :was WHERE state = :to"
- command: [sh, -c, "exit 75"]
"""
    with database(tmp_path, text.rpartition("- command")[0]) as desk:
        run = carried(desk)
        assert run.state == "succeeded" and run.steps[0].output == {"rows": 2, "first": 1}, run.said
        assert _states(path) == ["'; DROP TABLE rows; --"] * 2 + ["old"]
    path.unlink()
    _table(path)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "rows.db").symlink_to(path)
    with database(tmp_path / "again", text) as desk:
        assert carried(desk).state == "compensated" and _states(path) == ["new", "new", "old"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("{target: live, do: 'DELETE FROM rows', rows: 1}", "it would change 3 rows, not 1"),
        ("{target: live, do: 'DELETE FROM rows; DELETE FROM rows'}", "one statement at a time"),
        ("{target: live, do: 'DELETE FROM others'}", "no such table: others"),
        ("{target: live, do: 'INSERT INTO rows SELECT a.id, 1 FROM rows a, rows b WHERE 1/(a.id - a.id) IS NULL AND nope(1)'}", "no such function"),
    ],
)
def test_what_a_database_refuses_is_rolled_back(tmp_path, sql, said):
    path = _table(tmp_path / "rows.db")
    with database(tmp_path, f"- sql: {sql}") as desk:
        run = carried(desk)
        assert run.state == "compensated" and said in run.said and _states(path) == ["new", "new", "old"]


def test_a_look_of_a_statement_says_whether_it_is_done(tmp_path):
    path = _table(tmp_path / "rows.db")
    look = "SELECT NOT EXISTS (SELECT 1 FROM rows WHERE state = :was)"
    with database(tmp_path, f"- sql: {{target: live, do: 'DELETE FROM rows WHERE state = :was', with: {{was: new}}, look: '{look}'}}") as desk:
        assert carried(desk).state == "succeeded" and _states(path) == ["old"]
        run = carried(desk)
        assert run.state == "succeeded" and run.steps[0].tries == 0, "there is nothing to do"


def test_a_statement_that_never_ends_is_stopped_and_rolled_back(tmp_path):
    path = _table(tmp_path / "rows.db")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) DELETE FROM rows WHERE id IN (SELECT i FROM n WHERE i < 0)"
    with database(tmp_path, f"- {{sql: {{target: live, do: '{endless}'}}, within: 300ms}}") as desk:
        run = carried(desk)
        assert run.state == "compensated" and "interrupted" in run.said and _states(path) == ["new", "new", "old"]


def test_a_table_that_may_only_be_looked_at_takes_no_statement(tmp_path):
    _table(tmp_path / "rows.db")
    one = database(tmp_path, "- sql: {target: live, do: DELETE FROM rows}", auth=", auth: {look: {bearer: x}}")
    with one as desk, pytest.raises(PlanError, match=r"live\.auth\.act"):
        verbs.start(desk.world, "own", "fraud", {}, "ada", dry_run=True)


def test_postgres_carries_a_statement_out_as_sqlite_does(tmp_path, postgres):
    url = postgres.load("steps", {"id": "integer", "state": "text"}, [(1, "new"), (2, "new"), (3, "old")])
    text = """
- sql:
    target: live
    do: "UPDATE steps SET state = :to || '%' WHERE state = :was AND id::text <> ':no' RETURNING id, now()"
    with: {to: it's, was: new}
    rows: 2
- sql: {target: live, do: "DELETE FROM steps; DELETE FROM steps"}
"""
    with database(tmp_path, text, url) as desk:
        run = carried(desk)
        assert run.steps[0].output == {"rows": 2}, run.said
        assert run.state == "stuck" and "multiple commands" in run.said, "the first statement has no undo"
    (tmp_path / "more").mkdir()
    look = "SELECT NOT EXISTS (SELECT 1 FROM steps WHERE state <> :was)"
    text = f"- sql: {{target: live, do: 'DELETE FROM steps WHERE state <> :was', with: {{was: old}}, look: '{look}'}}"
    with database(tmp_path / "more", text, url) as desk:
        assert carried(desk).state == "succeeded" and carried(desk).steps[0].tries == 0
    with postgres.connected() as con:
        assert con.execute("SELECT state FROM steps").fetchall() == [("old",)]


# Plans made in Python


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ('Step("a", "http.post", {"url": "ftp://h", "method": "POST"}, timedelta(seconds=1))', "url: must be a URL that begins with http"),
        ('Step("a", "http.put", {"url": "http://h", "metod": "PUT"}, timedelta(seconds=1))', "http.put takes no 'metod'; did you mean 'method'?"),
        ('Step("a", "command.run", {"argv": "ls | wc"}, timedelta(seconds=1))', "argv: must be a list"),
        ('Step("a", "sql.run", {"target": "live", "do": "VACUUM"}, timedelta(seconds=1))', "cannot begin with VACUUM"),
        ('Step("a", "sql.run", {"target": "live", "do": "DELETE FROM x"}, timedelta(seconds=1))', "a statement needs a live, and fraud has none"),
        ('Step("a", "sql.run", {"target": "router", "do": "DELETE FROM x"}, timedelta(seconds=1))', "takes no statements"),
    ],
)
def test_args_that_no_world_could_make_right_are_refused_while_planning(tmp_path, step, said):
    with planned(tmp_path, step) as desk, pytest.raises(PlanError, match=said.replace("?", r"\?")):
        verbs.start(desk.world, "plan", "fraud", {}, "ada", dry_run=True)


def test_the_configuration_and_the_actions_say_the_same_of_what_they_take_and_give(tmp_path):
    with fraud(tmp_path) as desk:
        service = desk.world.service("fraud")
        for name, verb in steps.PLATFORM.items():
            action = actions.find(desk.world, service, name)
            assert (action.takes, action.gives) == (verb.takes, verb.gives), name


# What comes from elsewhere


HOSTILE = {
    "half a character": '"\\ud800"',
    "a null": '"a\\u0000b"',
    "a break of the line": '"a\\r\\nX-Evil: 1"',
    "a mapping": '{"from": "said.printed", "parameter": "x"}',
    "a list": "[[1], [2]]",
    "a huge number": "1" + "0" * 400,
    "nothing": "null",
    "too much": '"' + "x" * 60_000 + '"',
    "up": '".."',
}


def test_whatever_an_earlier_step_gave_the_run_comes_to_an_end_that_is_no_defect(tmp_path):
    _table(tmp_path / "rows.db")
    text = """
- {command: {run: [cat, given.json], keep: {x: x}}, name: said}
- {http: {put: "http://127.0.0.1:9/a", path: [{from: said.x}], query: {q: {from: said.x}}, json: {x: {from: said.x}}}, otherwise: go on}
- {http: {post: "http://127.0.0.1:9/b", body: {from: said.x}}, otherwise: go on}
- {command: [echo, {from: said.x}], otherwise: go on}
- {sql: {target: live, do: "UPDATE rows SET state = :x", with: {x: {from: said.x}}}, otherwise: go on}
"""
    with database(tmp_path, text) as desk:
        for what, given in HOSTILE.items():
            (tmp_path / "given.json").write_text(f'{{"x": {given}}}')
            run = carried(desk)
            assert run.state in ("succeeded", "stuck") and "defect" not in run.said, f"{what}: {run.said}"
        assert len(_states(tmp_path / "rows.db")) == 3


def test_an_answer_without_what_should_be_kept_of_it_is_not_sent_again(tmp_path):
    with desk_with(tmp_path, '- http: {post: "{jobs}/jobs", keep: {id: job.id}}') as (desk, jobs):
        for n, jobs.fault in enumerate(sorted(FAULTS), 1):
            run = carried(desk)
            assert run.state == ("compensated" if jobs.fault == "redirect" else "stuck") and len(jobs.requests) == n, f"{jobs.fault}: {run.said}"


def test_more_than_the_record_should_hold_is_not_kept(tmp_path):
    text = """- command: {run: [sh, -c, 'printf "{\\"x\\": \\"%070000d\\"}" 1'], keep: {x: x}}"""
    with desk_with(tmp_path, text.replace("70000", "65000")) as (desk, _):
        assert len(carried(desk).steps[0].output["x"]) == 65_000
    (tmp_path / "more").mkdir()
    with desk_with(tmp_path / "more", text) as (desk, _):
        run = carried(desk)
        assert run.state == "stuck" and "no JSON" in run.said, "what a command prints is cut at 64 KiB"
