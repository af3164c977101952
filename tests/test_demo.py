"""The demo as people start it: a program of its own, in a folder with spaces, of which nothing is left."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from examples.digits.split import pulse, split
from tests import processes

DEMO = (sys.executable, "-m", "examples.digits.demo")
STORY = (  # in this order, each found in a line of its own
    r"operator +trains four versions",
    r"operator +serves version 1 with",
    r"users +send 20 images a second",
    r"operator +starts the agent; its page is http://127",
    r"agent +version 0 is good \(ada\)",
    r"operator +\$ watchkeeper drill rollback digits --by ada",
    r"agent +rollback: drilled: flipped, looked at, and flipped back",
    r"operator +.*version 2.*lost the normalisation step",
    r"agent +digits/serving.parity: version 2 answers \d+ of 16 golden rows otherwise than recorded.*confirmed by 2 looks",
    r"agent +changed before it: version 2 serves instead of 1",
    r"agent +counterfactual: done: version 1 is better",
    r"agent +flip: done: 1 is pointed at",
    r"agent +look: done: version 1 is served",
    r"agent +resolved after",
    r"users +\d+ bad answers of \d+, first to last [\d.]+ s: detect [\d.]+ s, decide [\d.]+ s, flip [\d.]+ s, drain [\d.]+ s",
    r"operator +.*version 3.*version 2 mended",
    r"agent +version 3 is good \(soak\)",
    r"upstream +sends 56 pixels",
    r"agent +rollback: declined at counterfactual: version 1 is no better.*likely cause",
    r"upstream +sends good images again",
    r"agent +resolved after",
    r"operator +\$ watchkeeper audit run --out",
    r"story +every step was seen, in [\d.]+ s; the audit page is .*\.html",
    r"story +nothing is left running",
)


@dataclass
class Place:
    """A folder to start demos from. Whatever is started there carries a mark by which it is found again, and would write down an import of torch."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        (self.folder / "temporary files").mkdir()
        bait = self.folder / "bait"
        bait.mkdir()
        (bait / "torch.py").write_text(f"open({str(self.folder / 'torch was imported')!r}, 'w').close()\n")
        path = os.pathsep.join((str(processes.HOUSE), str(bait)))
        self.env = {**os.environ, "DEMO_MARK": self.mark, "PYTHONPATH": path, "TMPDIR": str(self.folder / "temporary files")}

    def start(self, *words: str | Path, command: Sequence[str] = DEMO, cwd: Path | None = None) -> subprocess.Popen[str]:
        line = [*command, *map(str, words)]
        return subprocess.Popen(line, env=self.env, cwd=cwd or self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def play(self, *words: str | Path, command: Sequence[str] = DEMO, cwd: Path | None = None) -> tuple[int, str]:
        with self.start(*words, command=command, cwd=cwd) as running:
            said, _ = running.communicate(timeout=200)
            return running.returncode, said

    def left(self) -> list[str]:
        """The command lines of whatever of it still runs."""
        return [line for one in psutil.process_iter() if (line := self._running(one)) is not None]

    def end(self) -> None:
        """So that one failing test leaves nothing for the next."""
        for one in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if self._running(one) is not None:
                    one.kill()

    def _running(self, one: psutil.Process) -> str | None:
        """Its command line, if it is of this place. It may end between any two questions, which is to be gone."""
        try:
            ours = one.status() != psutil.STATUS_ZOMBIE and one.environ().get("DEMO_MARK") == self.mark
            return " ".join(one.cmdline()) if ours else None
        except psutil.Error:
            return None

    def clean(self) -> bool:
        return not self.left() and not (self.folder / "torch was imported").exists()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    folder = tmp_path / "a place to start from"
    folder.mkdir()
    found = Place(folder)
    yield found
    found.end()


def in_order(said: str) -> None:
    """Every line of the story, each after the one before."""
    at = 0
    for line in STORY:
        found = re.compile(line).search(said, at)
        assert found, f"no {line!r} after {said[:at].splitlines()[-1:]} in:\n{said}"
        at = found.end()


@pytest.mark.timeout(300)
def test_the_story_is_told_twice_in_a_row_and_nothing_is_left(place: Place) -> None:
    for command in (DEMO, (str(Path(sys.executable).with_name("watchkeeper")), "demo")):
        code, said = place.play("--once", command=command)
        assert code == 0, said
        in_order(said)
        assert "\x1b" not in said, "no colours where there is no terminal"
        page = re.search(r"the audit page is (.*\.html)", said)
        assert page and "declined at counterfactual" in Path(page[1]).read_text()
        assert place.clean()
        assert [path.name for path in Path(page[1]).parent.iterdir()] == ["audit.html"]


@pytest.mark.timeout(200)
def test_a_step_that_does_not_come_is_named_with_what_was_seen_instead(place: Place) -> None:
    house = place.folder / "a house"
    shutil.copytree(processes.HOUSE / "examples", house / "examples")
    code_of_2 = house / "examples" / "digits" / "preprocessing.py"
    code_of_2.write_text(code_of_2.read_text().replace('"2": as_sent', '"2": to_unit_range'))
    place.env["PYTHONPATH"] = str(house)
    code, said = place.play("--once", "--keep", place.folder / "what is left", cwd=house)
    assert code == 1
    assert re.search(r"MISSED bad version: .* until an incident opens over serving.parity; seen instead: version 2 serves; .*serving.parity ok", said)
    assert place.clean()
    assert (place.folder / "what is left" / "agent.log").exists()
    code, said = place.play("--once", "--keep", place.folder / "what is left")
    assert code == 2 and "what is left holds an earlier demo; name another folder with --keep DIR" in said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_ended_in_the_middle(place: Place, how: signal.Signals) -> None:
    with place.start() as running:
        assert running.stdout
        for line in running.stdout:
            if "starts the agent" in line:
                break
        assert len(place.left()) >= 4
        running.send_signal(how)
        said = running.stdout.read() if how != signal.SIGKILL else ""
        assert running.wait(60) == (-9 if how == signal.SIGKILL else 130), said
    processes.until(place.clean, "everything has ended", 40, lambda: "\n".join(place.left()))
    assert "nothing is left running" in said or how == signal.SIGKILL
    assert how == signal.SIGKILL or not list((place.folder / "temporary files").glob("watchkeeper*"))


def untrained(place: Place) -> Path:
    """A folder in which the demo finds models that are none, and so comes to an early end."""
    models = place.folder / uuid.uuid4().hex / "models"
    models.mkdir(parents=True)
    (models / "stream.jsonl").write_text("{}\n")
    return models.parent


def test_an_actor_that_ends_breaks_the_story_off_with_its_last_lines(place: Place) -> None:
    code, said = place.play("--once", "--keep", untrained(place))
    assert code == 1
    assert "BROKEN OFF: start: the model server ended with status 1" in said and "there is no version" in said
    assert place.clean()


def test_a_port_that_is_taken_is_said_so(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = place.play("--once", "--port", str(port))
    assert code == 2 and f"port {port} cannot be used" in said and "--port" in said


def test_a_folder_that_cannot_be_written_is_said_so(place: Place) -> None:
    file = place.folder / "a file"
    file.touch()
    code, said = place.play("--once", "--keep", file / "inside")
    assert code == 2 and "the demo cannot write its files" in said and "--keep" in said


@pytest.mark.parametrize(("variable", "colours"), [("HARMLESS", True), ("NO_COLOR", False)])
def test_a_terminal_gets_colours_unless_it_asks_for_none(place: Place, variable: str, colours: bool) -> None:
    place.env |= {variable: "1", "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    line = [*DEMO, "--once", "--keep", str(untrained(place))]
    with subprocess.Popen(line, env=place.env, cwd=place.folder, stdout=theirs, stderr=theirs, stdin=theirs) as running:
        os.close(theirs)
        said = b"".join(pieces(ours))
        assert running.wait(60) == 1
    assert (b"\x1b[" in said) is colours and b"BROKEN OFF" in said


def pieces(terminal: int) -> Iterator[bytes]:
    """All that is written to a terminal until nobody has it open any more."""
    with suppress(OSError):
        while piece := os.read(terminal, 65536):
            yield piece


def test_the_time_of_bad_answers_is_split_without_rest() -> None:
    def answer(asked: float, wrong: bool) -> dict[str, object]:
        return {"at": at(asked), "answered_at": at(asked + 0.25), "status": 200, "wrong": wrong}

    incident = {
        "members": [{"watch": "digits/serving.parity", "since_at": at(12)}],
        "events": [
            {"kind": "run.began", "what": "", "at": at(13)},
            {"kind": "step", "what": "flip: trying, 1", "at": at(13.5)},
            {"kind": "step", "what": "flip: trying, 2", "at": at(13.75)},
        ],
        "runs": [{"steps": [{"name": "flip", "state": "done", "ended_at": at(14)}]}],
    }
    answers = [answer(9, True), answer(10.5, True), answer(11, False), answer(14, True), answer(15, False)]
    found = split(answers, 10, incident, "digits/serving.parity")
    assert found and dict(found.parts) == {"detect": 1.5, "decide": 1.5, "flip": 0.5, "drain": 0.25}
    assert (found.bad, found.answers) == (2, 4) and sum(found.parts.values()) == found.last_bad - found.first_bad
    assert split(answers[:1], 10, incident, "digits/serving.parity") is None
    assert pulse(answers, 15.5).startswith("answers a second: 0 good, 1 bad ▁")


def at(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()


@pytest.mark.timeout(240)
def test_the_same_story_is_told_against_mlserver(place: Place, mlserver: Path) -> None:
    code, said = place.play("--once", "--mlserver", mlserver)
    assert code == 0, said
    in_order(said)
    assert "serves version 1 with MLServer" in said
    assert place.clean()
