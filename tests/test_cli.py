"""The command line as people and scripts use it: real processes, a real store, real servers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from agent import plugins
from agent.cli import EXITS, main
from agent.store import locked
from tests.conftest import HOUSE
from tests.fraud import Fraud, write_config
from tests.servers._loopback import Loopback

WITHIN = 60


def leaves(command: click.Command = main, words: tuple[str, ...] = ()) -> Iterator[Any]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*words, name))
    else:
        yield pytest.param(words, command, id=" ".join(words))


def program(*args: object, folder: Path | None = None, **environment: str) -> dict[str, Any]:
    """How to start the command as a process of its own."""
    path = os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "WATCHKEEPER_BY": "ada", "COLUMNS": "200", **environment}
    return {"args": [sys.executable, "-m", "agent.cli", *map(str, args)], "cwd": folder, "env": env, "text": True, "encoding": "utf-8"}


def wk(*args: object, code: int = 0, folder: Path | None = None, **environment: str) -> str:
    """What the command printed; it must have ended with that code, and without a traceback."""
    done = subprocess.run(**program(*args, folder=folder, **environment), capture_output=True, timeout=WITHIN)
    assert done.returncode == code, f"{args} ended with {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


class Desk:
    """A configuration of a real service, and the command that uses it."""

    def __init__(self, folder: Path, server: Fraud, mode: str = "approve", more: str = "") -> None:
        self.folder, self.server = folder, server
        self.path = write_config(folder, server.address, mode, more)

    def __call__(self, *args: object, code: int = 0, **environment: str) -> str:
        return wk("-c", self.path, *args, code=code, **environment)

    def json(self, *args: object, code: int = 0) -> Any:
        return json.loads(self(*args, "--json", code=code))

    @property
    def store(self) -> Path:
        return self.folder / "watchkeeper.db"


class Inside(Desk):
    """The same, within this process: half the time, where how a process starts and ends is not what is tested."""

    def __call__(self, *args: object, code: int = 0, **environment: str) -> str:
        done = CliRunner().invoke(main, ["-c", str(self.path), *map(str, args)], env={"WATCHKEEPER_BY": "ada", **environment})
        assert done.exit_code == code, f"{args} ended with {done.exit_code}, not {code}:\n{done.output}"
        return done.output


@pytest.fixture
def server() -> Iterator[Fraud]:
    with closing(Fraud()) as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, server: Fraud) -> Desk:
    return Desk(tmp_path, server)


# The shape of every command


@pytest.mark.parametrize(("words", "command"), list(leaves()))
def test_every_command_has_json_and_an_example_in_its_help(words: tuple[str, ...], command: click.Command) -> None:
    help_text = command.get_help(click.Context(command, info_name=" ".join(words)))
    assert "--json" in help_text
    assert f"Example:\n    {'eval' if words == ('completion',) else 'watchkeeper ' + ' '.join(words)}" in help_text
    assert command.help, f"{words} does not say what it does"


@pytest.mark.parametrize(("words", "command"), list(leaves()))
def test_the_example_of_every_command_is_one(words: tuple[str, ...], command: click.Command) -> None:
    assert command.epilog
    line = command.epilog.splitlines()[2].strip().removeprefix('eval "$(').removesuffix(')"').split(" > ")[0]
    given = shlex.split(line)[1:]
    assert tuple(given[: len(words)]) == words
    command.make_context(line, given[len(words) :], obj=None)


@pytest.mark.parametrize(("words", "command"), list(leaves()))
def test_every_command_has_a_test(words: tuple[str, ...], command: click.Command) -> None:
    names = "cli audit audit_daily audit_outputs audit_proof attested budget strategies quantize_command serving_profile"
    names += " replay cases drift_command contracts load_command forgetting recounting scaffold"
    text = "".join((Path(__file__).parent / f"test_{name}.py").read_text(encoding="utf-8") for name in names.split())
    assert ", ".join(f'"{word}"' for word in words) in text


def test_the_help_names_every_exit_code() -> None:
    said = wk("--help")
    for code, what in EXITS:
        assert f"{code}  {what}" in said


def test_an_unknown_command_is_a_usage_error() -> None:
    assert "No such command" in wk("frobnicate", code=2)


# Contracts of tables; tests/test_contracts.py has the rest


def test_a_contract_is_written_from_a_table_and_held_against_it(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("x\n1\n2\n")
    wk("contract", "infer", "log.csv", "--out", "contract.yaml", folder=tmp_path)
    assert "2 rows keep the contract" in wk("contract", "check", "log.csv", "--contract", "contract.yaml", folder=tmp_path)


# Setting up


def test_init_writes_a_configuration_that_validates_and_is_never_overwritten(tmp_path: Path) -> None:
    assert "validate --live" in wk("init", "here", folder=tmp_path)
    path = tmp_path / "here" / "watchkeeper.yaml"
    assert json.loads(wk("validate", path, "--json"))["watches"] == 3
    path.write_text("mine")
    assert "left as it is" in wk("init", "here", folder=tmp_path, code=2)
    assert path.read_text() == "mine"


def test_validate_tells_every_error_at_once_and_where(tmp_path: Path) -> None:
    path = tmp_path / "watchkeeper.yaml"
    path.write_text("services:\n  fraud:\n    ownr: ada\n    watches:\n      - {check: serving.redy}\n")
    said = wk("-c", path, "validate", code=2)
    assert "watchkeeper.yaml:3:5 services.fraud.ownr: unknown key; did you mean 'owner'?" in said
    assert "did you mean 'serving.ready'?" in said
    assert len(json.loads(wk("validate", path, "--json", code=2))["problems"]) == 2


def test_a_configuration_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert "nowhere.yaml" in wk("status", "--config", tmp_path / "nowhere.yaml", code=2)
    assert "nowhere.yaml" in wk("-c", tmp_path / "nowhere.yaml", "status", code=2)
    assert "nowhere.yaml" in wk("status", code=2, WATCHKEEPER_CONFIG=str(tmp_path / "nowhere.yaml"))


def test_live_validation_says_what_each_credential_can_do_and_changes_nothing(desk: Desk) -> None:
    told = {one["role"]: one for one in desk.json("validate", "--live")["targets"]}
    assert {one["look"] for one in told.values()} == {"allowed"}
    assert "ready, version" in told["server"]["said"]
    assert "sends traffic to 1 (100%)" in told["router"]["said"]
    assert {method for method, *_ in desk.server.requests} == {"GET"}
    desk.server.mood = lambda method, path: (403, {"error": "no"}) if path.startswith("/admin") else None
    told = {one["role"]: one for one in desk.json("validate", "--live", code=1)["targets"]}
    assert told["router"]["look"] == "denied"
    assert told["server"]["look"] == "allowed"


def test_plugins_are_listed_and_one_is_told_in_full() -> None:
    assert {"serving.ready", "rollback", "server:oip"} <= {one["name"] for one in json.loads(wk("plugins", "--json"))}
    assert {one["kind"] for one in json.loads(wk("plugins", "--kind", "runbook", "--json"))} == {"runbook"}
    told = json.loads(wk("plugins", "rollback", "--json"))
    assert {"name": "to", "annotation": "str | None", "default": "None"} in told["parameters"]
    assert "did you mean 'rollback'" in wk("plugins", "rolback", code=2)
    assert "rollback" in wk("runbook", "list")


def test_the_schema_describes_the_configuration() -> None:
    assert "services" in json.loads(wk("schema"))["properties"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    assert "_WATCHKEEPER_COMPLETE" in json.loads(wk("completion", shell, "--json"))["script"]


def test_the_demo_says_where_it_is_when_only_the_package_is_installed(tmp_path: Path) -> None:
    shutil.copytree(HOUSE / "agent", tmp_path / "agent")
    assert "make demo" in wk("demo", "--once", code=2, folder=tmp_path, PYTHONPATH=str(tmp_path))


# Looking


def test_a_store_that_is_not_there_yet_is_said_so_and_not_made(desk: Desk) -> None:
    for words in (("status",), ("incidents",), ("audit", "run"), ("db", "verify"), ("silence", "list"), ("runbook", "show", 1)):
        assert "no store" in desk(*words, code=3)
    assert not desk.store.exists()


def test_the_exit_code_of_a_check_is_what_it_saw(desk: Desk) -> None:
    (found,) = desk.json("check", "fraud", "serving.ready")
    assert found["status"] == "ok"
    assert len(desk.json("check", "--all")) == 2
    desk.server.up = False
    assert desk.json("check", "fraud", "serving.ready", code=1)[0]["status"] == "fail"
    desk.server.stop()
    assert desk.json("check", "fraud", "serving.ready", code=3)[0]["status"] == "error"


def test_unknown_names_are_usage_errors_with_a_suggestion(desk: Desk) -> None:
    assert "did you mean 'fraud'?" in desk("check", "fruad", code=2)
    assert "did you mean 'serving.ready'?" in desk("check", "fraud", "serving.redy", code=2)
    assert "did you mean 'fraud'?" in desk("good", "fruad", "1", code=2)
    assert "name a service, or say --all" in desk("check", code=2)


def test_status_tells_that_nobody_watches_and_that_a_rollback_would_be_refused(desk: Desk) -> None:
    desk("check", "--all")
    said = desk("status", "fraud")
    assert "no agent is running" in said
    assert "none: a rollback would be refused" in said
    told = desk.json("status")
    assert (told["agent"], told["halted"], told["services"][0]["state"]) == (None, "", "ok")


def test_an_incident_is_told_with_its_timeline_and_can_be_acknowledged(desk: Desk) -> None:
    desk("check", "--all")
    desk.server.up = False
    desk("check", "fraud", "serving.ready", code=1)
    (one,) = desk.json("incidents", "--open")
    told = desk.json("incidents", one["id"])
    assert [event["kind"] for event in told["timeline"]][:3] == ["change.first", "incident.opened", "incident.context"]
    assert desk.json("ack", one["id"], "--by", "grace")["acknowledged_by"] == "grace"
    assert "acknowledged by grace" in desk("incidents", one["id"])
    assert desk.json("status", code=1)["services"][0]["incidents"][0]["id"] == one["id"]
    assert "no incident 99" in desk("ack", 99, code=3)
    assert "no incident 99" in desk("incidents", 99, code=3)


# Acting


def test_a_rollback_is_refused_then_planned_then_done(desk: Desk) -> None:
    desk.server.served = "2"
    desk("check", "fraud", "serving.ready")
    assert "watchkeeper good fraud VERSION" in desk("runbook", "run", "rollback", "fraud", "--dry-run", code=3)
    assert desk.json("good", "fraud", "1")["by"] == "ada"
    plan = desk.json("runbook", "run", "rollback", "fraud", "--dry-run")
    assert [step["name"] for step in plan["steps"]] == ["preflight", "flip", "look", "record"]
    assert len(plan["digest"]) == 64
    assert desk.server.served == "2"
    said = desk("runbook", "run", "rollback", "fraud")
    assert "done  flip" in said
    assert desk.server.flips == ["1"]
    shown = desk.json("runbook", "show", 1)
    assert (shown["state"], shown["by"], [step["state"] for step in shown["steps"]]) == ("succeeded", "ada", ["done"] * 4)
    assert "already has the traffic" in desk("runbook", "run", "rollback", "fraud", "--param", "to=1", code=3)
    assert "is not KEY=VALUE" in desk("runbook", "run", "rollback", "fraud", "--param", "to", code=2)
    assert "succeeded" in desk("runbook", "cancel", 1, code=3)
    assert "no run 9" in desk("runbook", "approve", 9, code=3)


def test_a_parameter_is_text_only_where_the_runbook_takes_text() -> None:
    from agent.commands.acting import _parameters

    book = plugins.listing("runbook")["retrain"]
    given = ['parameters={"epochs": 5}', "version=7", 'sound=["data.contract"]', "held=0.3", "rollout="]
    assert _parameters(book, given) == {"parameters": {"epochs": 5}, "version": "7", "sound": ["data.contract"], "held": 0.3, "rollout": ""}


def test_a_drill_flips_and_flips_back_and_says_how_long_each_step_took(desk: Desk) -> None:
    desk("check", "fraud", "serving.ready")
    desk("good", "fraud", "2")
    assert [step["name"] for step in desk.json("drill", "rollback", "fraud", "--dry-run")["steps"]] == ["preflight", "flip", "look"]
    desk.path.write_text(desk.path.read_text().replace("drills: {live: true}", "drills: {}"))
    assert "its users are part of it" in desk("drill", "rollback", "fraud", code=3)
    assert "never" in desk("drills")
    told = desk.json("drill", "rollback", "fraud", "--live")
    assert desk.server.flips == ["2", "1"]
    assert told["state"] == "succeeded"
    one = next(one for one in desk.json("drills", "fraud") if one["runbook"] == "rollback")
    assert (one["state"], one["run"], one["by"]) == ("drilled", told["id"], "ada")
    assert all(step["ended_at"] >= step["intended_at"] for step in told["steps"] if not step["undo"])


def test_the_list_of_drills_says_by_its_exit_code_what_auto_still_needs(tmp_path: Path, server: Fraud) -> None:
    desk = Desk(tmp_path, server, mode="auto")
    desk("good", "fraud", "2")
    assert "never" in desk("drills", code=1)


def test_a_game_day_knows_the_failures_that_it_can_make(tmp_path: Path) -> None:
    said = wk("gameday", "--only", "earthquake", code=2, folder=tmp_path)
    assert "schema change" in said and "non-reproducible training" in said


def test_an_automatic_run_that_waits_for_a_person_is_approved_and_carried_out(desk: Desk) -> None:
    desk("good", "fraud", "1")
    desk("check", "--all")
    desk.server.served, desk.server.factors["2"] = "2", 3.0
    desk("check", "fraud", "serving.parity", code=1)
    (run,) = desk.json("status", code=1)["services"][0]["runs"]
    assert run["runbook"] == "rollback"
    assert "done  flip" in desk("runbook", "approve", run["id"], "--by", "grace")
    assert desk.server.served == "1"
    assert desk.json("runbook", "show", run["id"])["approved_by"] == "grace"


def test_halt_and_resume_are_in_the_record(desk: Desk) -> None:
    assert desk.json("halt", "--why", "odd numbers")["halted"] is True
    assert "odd numbers (ada)" in desk("status", code=3)
    desk("resume")
    assert desk.json("status", code=3)["halted"] == ""


def test_halt_writes_the_file_when_the_store_cannot_be_had(desk: Desk) -> None:
    with locked(desk.store):
        told = desk.json("halt", "--why", "now")
    file = Path(f"{desk.store}.halt")
    assert str(file) in told["how"]
    assert file.read_text() == "now (ada)\n"
    assert "remove it" in desk("resume", code=3)


# Through the daemon


@pytest.fixture
def watched(tmp_path: Path, server: Fraud) -> Iterator[Desk]:
    """The service with the agent running; its log is told when a test fails."""
    made = Desk(tmp_path, server)
    made.path.write_text(made.path.read_text() + "listen: 127.0.0.1:0\n")
    with subprocess.Popen(**program("-c", made.path, "run", "--json"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as agent:
        try:
            until(lambda: Path(f"{made.store}.daemon").exists() or agent.poll() is not None)
            assert agent.poll() is None, agent.communicate()[1]
            yield made
        finally:
            agent.send_signal(signal.SIGTERM)
            log = agent.communicate(timeout=WITHIN)[1]
    assert agent.returncode == 0, log
    assert "error" not in {json.loads(line)["level"] for line in log.splitlines()}, log
    assert not Path(f"{made.store}.daemon").exists()


def until(seen: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_while_the_agent_runs_it_does_what_the_commands_ask(watched: Desk) -> None:
    assert watched.json("status", code=watched_code(watched))["agent"]["url"].startswith("http://127.0.0.1:")
    assert [one["status"] for one in watched.json("check", "fraud")] == ["ok", "ok"]
    watched("good", "fraud", "2")
    plan = watched.json("runbook", "run", "rollback", "fraud", "--dry-run")
    assert [step["name"] for step in plan["steps"]] == ["preflight", "flip", "look", "record"]
    assert watched.json("drill", "rollback", "fraud")["state"] == "succeeded"
    assert watched.server.flips == ["2", "1"]
    made = watched.json("silence", "add", "fraud/*", "--for", "2h", "--why", "test")
    watched("silence", "expire", made["id"])
    assert watched.json("halt", "--why", "odd")["how"] == "told the daemon"
    watched("resume")
    watched.server.up = False
    watched("check", "fraud", "serving.ready", code=1)
    (incident,) = watched.json("incidents", "--open")
    assert watched.json("ack", incident["id"])["acknowledged_by"] == "ada"
    assert "incident 99" in watched("ack", 99, code=3)
    assert "no watch" in watched("silence", "add", "nobody/*", "--for", "2h", "--why", "x", code=3)
    assert "no runbook 'rolback'; did you mean 'rollback'?" in watched("runbook", "run", "rolback", "fraud", code=2)
    assert watched.json("db", "verify")["sound"] is True
    assert "held by process" in watched("run", code=3)


def test_halt_writes_the_file_when_the_agent_hangs(watched: Desk) -> None:
    pid = json.loads(Path(f"{watched.store}.daemon").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert f"wrote {watched.store}.halt" in watched.json("halt", "--why", "it hangs")["how"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "halted by" in watched.json("status", code=watched_code(watched))["halted"]


def watched_code(desk: Desk) -> int:
    """0 once the agent has looked at everything."""
    until(lambda: subprocess.run(**program("-c", desk.path, "status"), capture_output=True, timeout=WITHIN).returncode == 0)
    return 0


def test_what_a_killed_agent_leaves_behind_is_no_agent(desk: Desk) -> None:
    Path(f"{desk.store}.daemon").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "x", "pid": os.getpid()}))
    desk("check", "fraud", "serving.ready")
    assert desk.json("status", code=3)["agent"] is None


# Telling


def test_a_silence_is_added_listed_and_ended(desk: Desk) -> None:
    made = desk.json("silence", "add", "fraud/*", "--for", "2h", "--why", "load test")
    assert [one["why"] for one in desk.json("silence", "list")] == ["load test"]
    desk("silence", "expire", made["id"])
    assert "no silence is in force" in desk("silence", "list")
    assert "no duration" in desk("silence", "add", "fraud/*", "--for", "soon", "--why", "x", code=2)
    assert "matches no watch" in desk("silence", "add", "nobody/*", "--for", "2h", "--why", "x", code=3)


DRIFT = """
      - check: drift.features
        every: 1h
        bind:
          live: {url: "parquet:live.parquet", time: {column: at, tz: UTC}, features: [amount]}
          reference: "parquet:reference.parquet"
"""


def amounts(path: Path, end: datetime, middle: float = 0.0) -> None:
    """Two days of rows up to `end`, a thousand an hour."""
    at = [end - timedelta(seconds=3.6 * place) for place in range(48_000)]
    table = {"at": pa.array(at, pa.timestamp("us", "UTC")), "amount": np.random.default_rng(1).normal(middle, size=48_000)}
    pyarrow.parquet.write_table(pa.table(table), path)


def test_a_yardstick_is_pinned_listed_and_taken_away(tmp_path: Path, server: Fraud) -> None:
    desk = Desk(tmp_path, server, more=DRIFT)
    now = datetime.now(UTC)
    amounts(tmp_path / "reference.parquet", now)
    amounts(tmp_path / "live.parquet", now, middle=1.0)
    assert "amount moved up" in desk("check", "fraud", "drift.features", code=1)
    (incident,) = desk.json("incidents", "--open", "--service", "fraud")
    evidence = desk.json("incidents", incident["id"])["evidence"]["fraud/drift.features"]
    assert evidence["files"] == ["drift.json", "drift.svg", "evidence.svg"]
    assert f"watchkeeper finding {evidence['id']} tells it in full, which left drift.json" in desk("incidents", incident["id"])
    told = desk("finding", evidence["id"], "--out", tmp_path / "evidence")
    assert "With at least 99 % over the draw of the reference" in told and f"left {tmp_path / 'evidence' / 'drift.svg'}" in told
    assert (tmp_path / "evidence" / "drift.svg").read_text().startswith("<svg")
    assert "there is no finding 999" in desk("finding", 999, code=2)
    assert "cannot be written" in desk("finding", evidence["id"], "--out", tmp_path / "live.parquet" / "x", code=2)
    made = desk.json("baseline", "pin", "fraud", "drift.features", "--since", "1d", "--until", "30m", "--why", "a new market")
    assert made["watch"] == "fraud/drift.features" and made["by"] == "ada"
    assert [one["why"] for one in desk.json("baseline", "list")] == ["a new market"]
    (seen,) = desk.json("check", "fraud", "drift.features")
    assert seen["status"] == "ok" and "memory started afresh" in seen["reason"]
    desk("baseline", "unpin", "fraud", "drift.features")
    assert "nothing is pinned" in desk("baseline", "list")
    assert "nothing is pinned for fraud/drift.features" in desk("baseline", "unpin", "fraud", "drift.features", code=3)
    pinned = desk.json("baseline", "pin", "fraud", "drift.features", "--finding", seen["id"], "--why", "as it was then")
    assert (pinned["start_at"], pinned["end_at"]) == (seen["start_at"], seen["end_at"])  # to the microsecond: its files go with it
    assert "is one of fraud/drift.features" in desk("baseline", "pin", "fraud", "serving.ready", "--finding", seen["id"], "--why", "x", code=2)
    assert "has no yardstick" in desk("baseline", "pin", "fraud", "serving.ready", "--since", "1d", "--why", "x", code=3)
    assert "does not end after its start" in desk(
        "baseline", "pin", "fraud", "drift.features", "--since", "1h", "--until", "2h", "--why", "x", code=3
    )


def test_notify_tests_the_channels(tmp_path: Path) -> None:
    with_answer = Loopback(lambda method, path, body: (200, {}))
    path = tmp_path / "watchkeeper.yaml"
    path.write_text(f'notify: {{channels: {{ada: "{with_answer.address}/hook", eve: "http://127.0.0.1:9/"}}}}\nservices: {{fraud: {{}}}}\n')
    told = json.loads(wk("-c", path, "notify", "test", "--json", code=1))
    assert [(one["channel"], one["taken"]) for one in told] == [("ada", True), ("eve", False)]
    assert "ada took a test letter" in wk("-c", path, "notify", "test", "ada")
    assert "did you mean 'ada'?" in wk("-c", path, "notify", "test", "adda", code=2)
    with_answer.stop()


# The store


def test_the_store_is_backed_up_and_verified(desk: Desk, tmp_path: Path) -> None:
    desk("check", "--all")
    assert desk.json("db", "path") == {"path": str(desk.store), "exists": True}
    assert desk.json("db", "verify") == {"sound": True, "problems": []}
    desk("db", "backup", tmp_path / "copy.db")
    assert "exists already" in desk("db", "backup", tmp_path / "copy.db", code=3)
    with closing(sqlite3.connect(desk.store)) as conn:
        conn.execute("UPDATE finding SET status = 'ok', reason = 'nothing to see' WHERE id = 1")
        conn.commit()
    assert desk.json("db", "verify", code=4)["problems"] == ["finding 1 is not what was sealed"]


def test_a_store_of_a_newer_version_ends_with_the_code_for_it(desk: Desk) -> None:
    desk("check", "--all")
    assert json.loads(desk("db", "upgrade", "--json"))["backup"].startswith(str(desk.store))
    with closing(sqlite3.connect(desk.store)) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
        conn.commit()
    assert "newer Watchkeeper" in desk("status", code=4)
    assert json.loads(desk("check", "--all", "--json", code=4))["error"]


def test_a_file_that_is_no_store_ends_with_the_code_for_it(desk: Desk) -> None:
    desk.store.write_bytes(b"not a database, but long enough to be read as one" * 100)
    assert "damaged" in desk("status", code=4)
    assert desk.store.read_bytes().startswith(b"not a database")


# Ends


def test_what_a_server_says_does_not_move_the_cursor() -> None:
    from agent import show

    found = {"status": "fail", "watch": "fraud/x", "reason": "\x1b[2J\x07gone [bold]not markup[/]", "parts": {}}
    assert show.findings([found]) == "fail  fraud/x: \ufffd[2J\ufffdgone [bold]not markup[/]\n"


def test_a_closed_pipe_ends_quietly(desk: Desk) -> None:
    with subprocess.Popen(**program("plugins"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.wait(WITHIN) == 141
        assert process.stderr.read() == ""


def test_ctrl_c_ends_quietly(desk: Desk) -> None:
    desk.server.fault = "hang"
    with subprocess.Popen(**program("-c", desk.path, "check", "--all"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: desk.server.requests or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, out, err) == (130, "", "")


def test_nothing_is_coloured_in_a_pipe(desk: Desk) -> None:
    desk("check", "--all")
    assert "\x1b" not in desk("status", NO_COLOR="", TERM="xterm-256color")


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    done = subprocess.run(**program("--debug", "-c", tmp_path / "no.yaml", "status"), capture_output=True, timeout=WITHIN)
    assert (done.returncode, "Traceback" in done.stderr) == (2, True)
