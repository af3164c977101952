"""A run followed on a real terminal and without one: what is shown while it goes, what stays, and that JSON stays one document."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.commands._steps import Steps, elapsed
from agent.config import load
from agent.door import Call
from agent.model import StepRow
from agent.store import Store
from tests.conftest import HOUSE
from tests.fraud import Fraud, write_config

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
COMMAND = [sys.executable, "-m", "agent.cli"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """A service that could go back to version 1, each of whose answers takes a moment."""
    with closing(Fraud("2")) as server:
        path = write_config(tmp_path, server.address, "approve")
        store = Store.open(load(path).store).start()
        store.write(lambda ledger: ledger.declare_good("fraud", "1", "ada", NOW))
        store.close()
        server.mood = lambda method, place: time.sleep(0.15)
        yield path


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "TERM": "xterm-256color", **more}


def on_a_terminal(path: Path, **more: str) -> str:
    """What a rollback writes to a terminal, in frames as it wrote them."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "-c", path, "runbook", "run", "rollback", "fraud", "--by", "ada"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(COLUMNS="120", **more)) as child:
        os.close(theirs)
        parts = []
        while part := _read(ours):
            parts.append(part)
    os.close(ours)
    assert child.returncode == 0, b"".join(parts)
    return b"".join(parts).decode()


def _read(place: int) -> bytes:
    try:
        return os.read(place, 2**16)
    except OSError:  # the other end was closed
        return b""


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def test_on_a_terminal_each_step_has_its_line_a_spinner_while_it_goes_and_what_it_said(desk: Path) -> None:
    text = on_a_terminal(desk)
    live, _, end = text.rpartition("\x1b[?25h")
    assert live and "\x1b[?25l" in live, "the cursor is hidden while it is drawn, and given back"
    for step in ("preflight", "flip", "look"):
        assert re.search(rf"[-\\|/]  {step} +under way +\d+ms", bare(live)), step
    assert re.search(r"look +to come", bare(live))
    assert re.search(r"preflight +done +\S+  version 1: serving\.ready, serving\.parity ok", bare(live))
    assert "run 1  succeeded  rollback on fraud" in bare(end)


def test_on_a_dumb_terminal_each_step_is_a_line_and_the_cursor_is_left_alone(desk: Path) -> None:
    text = on_a_terminal(desk, TERM="dumb")
    assert "\x1b" not in text
    assert "  done  flip: 1 is pointed at" in text


def test_without_a_terminal_each_step_is_a_line_and_json_is_one_document(desk: Path) -> None:
    command = ["-c", str(desk), "runbook", "run", "rollback", "fraud", "--by", "ada"]
    dry = CliRunner().invoke(main, [*command, "--dry-run", "--json"])
    assert (json.loads(dry.stdout)["table"][1]["back"], dry.stderr) == ("router.point to 2", "")
    done = CliRunner().invoke(main, [*command, "--json"])
    assert (json.loads(done.stdout)["state"], done.stderr) == ("succeeded", "")
    again = CliRunner().invoke(main, [*command, "--param", "to=2"])
    assert re.findall(r"^  done  (\w+)", again.stderr, re.MULTILINE) == ["preflight", "flip", "look", "record"]
    assert "planned" not in again.stderr


def row(state: str, began: float | None = None, ended: float | None = None) -> StepRow:
    began_at, ended_at = (None if s is None else NOW + timedelta(seconds=s) for s in (began, ended))
    return StepRow(0, "flip", "router.point", state, intended_at=began_at, ended_at=ended_at)  # type: ignore[arg-type]  # words of a table


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (row("planned"), ""),
        (row("planned", 0), ""),
        (row("intended", 0), "5s"),
        (row("undoing", 3), "2s"),
        (row("done", 0, 2.5), "2.5s"),
        (row("done", 9, 2), "0ms"),  # the clock was set back meanwhile
        (row("failed", 0), "0ms"),
    ],
)
def test_how_long_a_step_has_taken_so_far(step: StepRow, said: str) -> None:
    assert elapsed(step, NOW + timedelta(seconds=5)) == said


def test_what_a_target_says_moves_no_cursor_and_tells_no_secret() -> None:
    call = Call(Path("x"))
    call.secrets = {"hunter2"}
    table = Steps(call)
    table.tell("waits\x1b[2J for hunter2")
    assert list(table.drawn().columns[4].cells) == ["waits\N{REPLACEMENT CHARACTER}[2J for ***"]
