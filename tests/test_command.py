"""The router whose reads and writes are commands, with real scripts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Absent, Auth, Done, Failed, Locator, Router
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, ServerError, UnreachableError
from agent.targets import connect
from tests.processes import until
from tests.test_haproxy import tried

READ = "cat route"
WRITE = '[ "$(cat route)" = "$2" ] || { echo "it is at $(cat route)" >&2; exit 75; }\nprintf %s "$1" > route'
BOTH = ("{to}", "{expected}")
BLIND = 'printf %s "$1" > route'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "route").write_text("1")
    return tmp_path


def router(
    folder: Path, read: str = READ, write: str = WRITE, words: tuple[str, ...] = ("{to}", "{expected}"), within: float = 10, **options: Any
) -> Any:
    for name, text in (("read.sh", read), ("write.sh", write)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    given = {"read": ["./read.sh"], "write": ["./write.sh", *words], **options}
    return connect(Locator("fraud", "router", "command:.", given, within=timedelta(seconds=within), folder=str(folder)))


def test_it_points_all_traffic_to_another_version_and_back(folder):
    one = router(folder)
    assert isinstance(one, Router)
    before = one.point.before({"to": "2"})
    assert isinstance(one.point.look({"to": "2"}, tried(before)), Absent)
    one.point.do({"to": "2"}, tried(before))
    assert one.point.look({"to": "2"}, tried(before)) == Done({"from": "1", "to": "2"}, "2 is pointed at")
    one.point.do(one.point.undo({"to": "2"}, before, {}), tried("2"))
    assert one.served() == {"1": 1.0}


@pytest.mark.parametrize(("write", "words"), [(WRITE, BOTH), (BLIND, ("{to}",))])
def test_what_somebody_else_has_moved_is_left_alone(folder, write, words):
    """By the command itself, or by reading again where it cannot compare."""
    one = router(folder, write=write, words=words)
    (folder / "route").write_text("3")
    with pytest.raises(AnswerError, match="somebody else moved it") as caught:
        one.point.do({"to": "2"}, tried("1"))
    assert caught.value.status == 409
    assert (folder / "route").read_text() == "3"
    assert isinstance(one.point.look({"to": "2"}, tried("1")), Failed)


def test_shares_are_read_as_json(folder):
    one = router(folder)
    (folder / "route").write_text('{"1": 9, "2": 1, "3": 0}')
    assert one.served() == pytest.approx({"1": 0.9, "2": 0.1})
    assert one.point.before({"to": "1"}) == {"1": 0.9, "2": 0.1}


def test_the_word_of_a_command_that_changed_nothing_is_not_believed(folder):
    one = router(folder, write="exit 0")
    one.point.do({"to": "2"}, tried("1"))
    assert isinstance(one.point.look({"to": "2"}, tried("1")), Absent)


@pytest.mark.parametrize("text", ["", "two words", '{"1": -1, "2": 2}', '{"1": 0}', '{"1": "a"}', "{broken"])
def test_what_is_neither_a_version_nor_shares_is_an_error(folder, text):
    one = router(folder)
    (folder / "route").write_text(text)
    with pytest.raises(AnswerError, match="neither a version nor shares"):
        one.served()


def test_a_command_that_fails_tells_its_last_words(folder):
    with pytest.raises(ServerError, match=r"exit status 3: no such cluster"):
        router(folder, read="echo no such cluster >&2; exit 3").served()


def test_a_command_that_hangs_is_killed_with_what_it_started(folder):
    one = router(folder, read="sleep 600 & echo $! > child; echo 1; wait", within=0.3)
    with pytest.raises(DeadlineError, match="killed with all it had started"):
        one.served()
    child = int((folder / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text(), "the child is gone")


def test_a_command_that_says_too_much_is_cut_and_not_kept(folder):
    with pytest.raises(AnswerError, match="neither a version nor shares"):
        router(folder, read="yes | head -c 3000000").served()


def test_a_command_sees_no_more_of_our_environment_than_it_was_given(folder, monkeypatch):
    monkeypatch.setenv("WATCHKEEPER_SECRET", "hunter2")
    monkeypatch.setenv("KUBECONFIG", "/k")
    assert router(folder, read="echo $WATCHKEEPER_SECRET-$KUBECONFIG-$X", inherit=["KUBECONFIG"], env={"X": 5}).served() == {"-/k-5": 1.0}


def test_a_version_that_looks_like_an_option_is_not_passed_on(folder):
    with pytest.raises(CannotError, match="taken for an option"):
        router(folder).point.do({"to": "--all"}, tried("1"))


def test_a_version_is_one_word_whatever_is_in_it(folder):
    """No shell is between us and the command."""
    one = router(folder)
    one.point.do({"to": "$(touch hacked);x"}, tried("1"))
    assert (folder / "route").read_text() == "$(touch hacked);x"
    assert not (folder / "hacked").exists()


def test_a_command_that_is_not_there_is_unreachable(folder):
    with pytest.raises(UnreachableError, match="cannot be run in"):
        connect(Locator("fraud", "router", "command:.", {"read": ["./none.sh"], "write": ["w", "{to}"]}, folder=str(folder))).served()


@pytest.mark.parametrize(
    ("options", "auth", "said"),
    [
        ({"read": "cat route", "write": ["w", "{to}"]}, None, "as a list of words"),
        ({"read": ["r"], "write": ["w"]}, None, "no word says {to}"),
        ({"read": ["r"]}, None, "write: write the command"),
        ({"read": ["r"], "write": ["w", "{to}"], "shell": True}, None, "no option 'shell'"),
        ({"read": ["r"], "write": ["w", "{to}"], "inherit": "PATH"}, None, "inherit: "),
        ({"read": ["r"], "write": ["w", "{to}"]}, Auth("bearer", {"token": "x"}), "takes no credential"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_once(options, auth, said):
    with pytest.raises(ConfigError, match=said):
        connect(Locator("fraud", "router", "command:.", options, look=auth))
