"""The nginx router against a real nginx with two servers behind it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Auth, Done, Locator, Pending, Router
from agent.errors import AnswerError, CannotError, ConfigError, UnreachableError
from agent.targets import connect
from agent.targets._shares import NEAR
from agent.targets.nginx import APART
from tests.haproxy import free_port
from tests.processes import start, until
from tests.servers import plain
from tests.test_haproxy import asked, tried

CONFIG = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
daemon off;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream fraud {{ include {folder}/fraud.servers; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://fraud; }} }}
}}
"""


@dataclass
class Box:
    folder: Path
    url: str
    versions: dict[str, str]
    program: Path

    def router(self, **options: Any) -> Any:
        given = {"versions": self.versions, "pid": str(self.folder / "nginx.pid"), **options}
        return connect(Locator("fraud", "router", f"nginx:{self.folder / 'fraud.servers'}", given, within=timedelta(seconds=10)))


@pytest.fixture
def box(nginx: Path, tmp_path: Path) -> Iterator[Box]:
    with standing(nginx, tmp_path) as found:
        yield found


@contextmanager
def standing(program: Path, folder: Path) -> Iterator[Box]:
    behind, port = [plain.Speaker("1"), plain.Speaker("2")], free_port()
    places = [one.address.removeprefix("http://") for one in behind]
    (folder / "fraud.servers").write_text(f"server {places[0]} max_fails=0;\nserver {places[1]} max_fails=0 down;\n")
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port))
    try:
        with start([program, "-c", folder / "nginx.conf"], lambda one: len(children(one.pid)) == 2):
            yield Box(folder, f"http://127.0.0.1:{port}", {"1": places[0], "2": places[1]}, program)
    finally:
        for one in behind:
            one.stop()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def moved(one: Any, to: Any) -> Any:
    """Through the action, as a run would: what stood, the effect, and looking until it says something else than pending."""
    before = one.point.before({"to": to})
    one.point.do({"to": to}, tried(before))
    seen: list[Any] = [None]

    def over() -> bool:
        seen[0] = one.point.look({"to": to}, tried(before))
        return not isinstance(seen[0], Pending)

    until(over, "the workers have the new file")
    return seen[0]


def test_it_is_a_router_that_reads_its_shares_from_the_file(box):
    one = box.router()
    assert isinstance(one, Router)
    assert one.served() == {"1": 1.0}
    assert one.can == {"switch", "weights"}


def test_it_is_done_only_when_no_worker_sends_anything_to_the_old_version(box):
    one = box.router()
    for to in ("2", "1", "2"):
        assert isinstance(moved(one, to), Done)
        assert asked(box.url, 10) == {to: 10}


def test_before_the_reload_the_file_is_not_believed(box):
    """The effect is a reload: a file that nobody has read yet changes nothing for users."""
    one = box.router()
    text = f"server {box.versions['1']} down;\nserver {box.versions['2']};\n"
    (box.folder / "fraud.servers").write_text(text)
    seen = one.point.look({"to": "2"}, tried("1"))
    assert isinstance(seen, Pending) and "still have the servers that stood before" in seen.said
    until(lambda: time.time() - (box.folder / "fraud.servers").stat().st_mtime > APART, "its age can be told from the workers'")
    os.kill(int((box.folder / "nginx.pid").read_text()), signal.SIGHUP)
    until(lambda: isinstance(one.point.look({"to": "2"}, tried("1")), Done), "it was reloaded")


def test_a_split_is_met_and_other_parameters_of_a_server_are_kept(box):
    one = box.router()
    assert isinstance(moved(one, {"1": 0.75, "2": 0.25}), Done)
    assert one.served() == pytest.approx({"1": 0.75, "2": 0.25}, abs=NEAR)
    seen = asked(box.url, 80)
    assert 10 <= seen["2"] <= 30  # each worker counts its own turns
    assert all("max_fails=0" in line for line in (box.folder / "fraud.servers").read_text().splitlines() if line.startswith("server"))


def test_what_somebody_else_has_moved_is_left_alone(box):
    one = box.router()
    with pytest.raises(AnswerError, match="somebody else moved it") as caught:
        one.point.do({"to": "2"}, tried("2"))
    assert caught.value.status == 409
    assert one.served() == {"1": 1.0}


def test_what_nginx_refuses_is_put_back(box):
    """The configuration is broken elsewhere: a reload would be refused, and the file would lie."""
    one = box.router(test=[str(box.program), "-t", "-c", str(box.folder / "nginx.conf")])
    (box.folder / "nginx.conf").write_text((box.folder / "nginx.conf").read_text() + "nonsense;\n")
    with pytest.raises(AnswerError, match=r"nginx refuses the new servers, and the file was put back: .*nonsense"):
        one.point.do({"to": "2"}, tried("1"))
    assert one.served() == {"1": 1.0}


def test_with_a_test_that_passes_it_is_moved(box):
    one = box.router(test=[str(box.program), "-t", "-q", "-c", str(box.folder / "nginx.conf")])
    assert isinstance(moved(one, "2"), Done)


def test_a_version_that_is_not_configured_cannot_be_pointed_at(box):
    with pytest.raises(CannotError, match="no server here is version 3; there is 1, 2"):
        box.router().point.do({"to": "3"}, tried("1"))


def test_nginx_that_does_not_run_is_unreachable(box):
    with pytest.raises(UnreachableError, match=r"none\.pid holds no process id"):
        box.router(pid=str(box.folder / "none.pid")).point.do({"to": "2"}, tried("1"))
    (box.folder / "gone.pid").write_text("999999999")
    with pytest.raises(UnreachableError, match="does not run"):
        box.router(pid=str(box.folder / "gone.pid")).point.look({"to": box.router()._aim()}, tried("1"))


@pytest.mark.parametrize(("text", "said"), [("", "no server of 1, 2 has a weight"), ("server 10.0.0.9:1;", "no server of 1, 2 has a weight")])
def test_a_file_without_these_servers_is_an_error(box, text, said):
    (box.folder / "fraud.servers").write_text(text)
    with pytest.raises(AnswerError, match=said):
        box.router().served()


def test_a_missing_file_is_named(tmp_path):
    at = Locator("fraud", "router", f"nginx:{tmp_path}/none", {"versions": {"1": "127.0.0.1:1"}})
    with pytest.raises(UnreachableError, match="name the file that `upstream` includes"):
        connect(at).served()


@pytest.mark.parametrize(
    ("options", "auth", "said"),
    [
        ({}, None, "knows addresses and no versions"),
        ({"versions": {"1": "a:1; include /etc/passwd"}}, None, "is no address"),
        ({"versions": {"1": "a:1"}, "test": "nginx -t"}, None, "as a list"),
        ({"versions": {"1": "a:1"}, "reload": True}, None, "no option 'reload'"),
        ({"versions": {"1": "a:1"}}, Auth("bearer", {"token": "x"}), "files know no credentials"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_once(options, auth, said):
    with pytest.raises(ConfigError, match=said):
        connect(Locator("fraud", "router", "nginx:/x", options, look=auth))
