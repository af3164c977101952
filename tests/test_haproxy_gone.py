"""A rollback through a real HAProxy whose control socket goes away in the middle of the flip: fault row 32."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import config, verbs
from agent.model import Run
from tests import haproxy
from tests.conftest import need
from tests.fraud import Desk, drilled, fraud
from tests.processes import until
from tests.test_haproxy import asked


class Gate:
    """A control socket before HAProxy's own, which is gone from the first command that changes something until it is `mended`."""

    def __init__(self, place: Path, behind: Path, takes_effect: bool) -> None:
        self.place, self.behind, self.takes_effect = place, behind, takes_effect
        self.armed, self.gone, self.changes = False, threading.Event(), 0
        self.mended()

    def mended(self) -> None:
        """It listens, again."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.place))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                with line:
                    command = line.recv(65536).decode()
                    changes = command.startswith("set server")
                    if changes and self.armed and not self.gone.is_set():
                        self.place.unlink()
                        if self.takes_effect:
                            self._passed(command)
                        self.gone.set()
                        return listener.close()
                    line.sendall(self._passed(command))

    def _passed(self, command: str) -> bytes:
        self.changes += command.startswith("set server")
        return haproxy.say(self.behind, command.strip()).encode()


@contextmanager
def balanced(folder: Path, takes_effect: bool) -> Iterator[tuple[Desk, haproxy.Box, Gate]]:
    """The fraud service, its traffic moved by HAProxy."""
    (folder / "lb").mkdir()
    with haproxy.standing(need("haproxy"), folder / "lb") as box, fraud(folder, patience="60s") as desk:
        gate = Gate(folder / "gate.sock", box.folder / "admin.sock", takes_effect)
        path = folder / "watchkeeper.yaml"
        router = f'router: {{url: "haproxy+unix:{gate.place}", backend: fraud, versions: {{"1": v1, "2": v2}}}}'
        path.write_text(path.read_text().replace(f"router: pointer+{desk.server.address}", router))
        desk.world.use(config.load(path))
        yield desk, box, gate


@pytest.mark.parametrize("takes_effect", [False, True], ids=["before the effect", "after the effect"])
def test_a_socket_that_goes_away_in_the_middle_of_a_flip_is_looked_at_again_until_the_weights_are_known(tmp_path, takes_effect):
    """The reply never comes. While nobody answers nothing is believed and nothing repeated; then the weights say what is left to do."""
    with balanced(tmp_path, takes_effect) as (desk, box, gate):
        haproxy.say(gate.behind, "set server fraud/v1 weight 0")
        drilled(desk)
        before, gate.armed = gate.changes, True
        made = verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
        assert isinstance(made, Run)
        until(lambda: desk.responder.tick(desk.world.clock()) is not None and gate.gone.is_set(), "the flip is under way")
        until(
            lambda: desk.responder.tick(desk.world.clock()) is not None and "cannot be used" in run_of(desk, made.id).said,
            "it cannot be told what stands",
        )
        assert run_of(desk, made.id).state == "running" and gate.changes == before + takes_effect
        gate.mended()
        run = desk.respond()
        assert run.state == "succeeded", run.said
        assert asked(box.url, 20) == {"1": 20} and gate.changes == before + 1
        (flip,) = [step for step in run.steps if step.name == "flip"]
        assert (flip.state, flip.tries) == ("done", 1 if takes_effect else 2)


def run_of(desk: Desk, number: int) -> Run:
    with desk.world.store.read() as ledger:
        run = ledger.run(number)
    assert run is not None
    return run
