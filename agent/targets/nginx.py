"""nginx before several versions of one model: the servers of an upstream stand in an include file, which is rewritten before nginx reloads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent import Json, Locator, adapter
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, DeniedError, UnreachableError
from agent.targets import _disk, _shapes, _shares
from agent.wire import remaining

OPTIONS = ("versions", "pid", "test")
LINE = re.compile(r"\s*server\s+(?P<address>[^\s;]+)(?P<rest>[^;]*);")
WEIGHT = re.compile(r"\bweight=(\d+)")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # the grain in which the system says how old a process is
APART = 3 * TICK  # between the file's time and the reload, so that workers of before and after can be told from their age
ADDRESS = re.compile(r"[A-Za-z0-9_.:/\[\]-]+")


@dataclass(frozen=True, slots=True)
class _Server:
    """One `server` line of the include file."""

    address: str
    weight: int
    rest: str  # its other parameters, kept as they are


@adapter(role="router", schemes=("nginx",))
class Nginx:
    """`nginx:/etc/nginx/fraud.servers`, the file that an `upstream` block includes, on this machine.

    `versions`: {version: address, or a list of addresses} as they stand in the file. `pid`: nginx's pid file (/run/nginx.pid), whose process is
    told to reload. `test`: the command that must succeed before it is, such as [nginx, -t]; when it fails the file is put back.
    It takes a tenth to a quarter of a second until no new request reaches the old version, and a kept connection may be reset meanwhile.
    """

    can: frozenset[str] = frozenset({"switch", "weights"})

    def __init__(self, at: Locator) -> None:
        self._where, given = f"{at.service}.{at.role}", _shapes.options(at, OPTIONS)
        if at.look is not None or at.act is not None:
            raise ConfigError(f"{self._where}: files know no credentials; who may write {at.address} and signal nginx is the system's to say")
        self._at, self._file = at, Path(at.folder, at.address)
        self._pid = Path(at.folder, str(given.get("pid", "/run/nginx.pid")))
        self._versions = _shares.versions(given.get("versions"), self._where)
        if not self._versions:
            raise ConfigError(f"{self._where}: nginx knows addresses and no versions; write `versions: {{'1': 10.0.0.1:8000, '2': 10.0.0.2:8000}}`")
        if wrong := [address for addresses in self._versions.values() for address in addresses if not ADDRESS.fullmatch(address)]:
            raise ConfigError(f"{self._where}.versions: {wrong[0]!r:.80} is no address of a server")
        test = given.get("test", ())
        if not isinstance(test, Sequence) or isinstance(test, str):
            raise ConfigError(f"{self._where}.test: write the command as a list, such as [nginx, -t]; no shell is asked")
        self._test = [str(word) for word in test]

    def served(self) -> Mapping[str, float]:
        """Share of new requests by version, as the file has it."""
        return _shares.asked(self._aim())

    @property
    def point(self) -> _shapes.Reloaded:
        """Sends the traffic to `{"to": version}`, or splits it by `{"to": {version: share}}`; done when every worker has the file as it is now."""
        return _shapes.Reloaded(self._aim, self._move, same=_shares.same, current=self._current)

    def close(self) -> None:
        """Nothing is kept open."""

    # What stands

    def _aim(self) -> Json:
        found = {server.address: server.weight for server in self._servers()}
        weights = {version: sum(found.get(address, 0) for address in addresses) for version, addresses in self._versions.items()}
        if not any(weights.values()):
            raise AnswerError(f"{self._where}: in {self._file} no server of {', '.join(self._versions)} has a weight; mend `versions`, or the file")
        return _shares.aim(weights)

    def _servers(self) -> list[_Server]:
        return [_server(match) for line in self._read().splitlines() if (match := LINE.match(line.partition("#")[0]))]

    def _read(self) -> str:
        try:
            return self._file.read_text()
        except (OSError, UnicodeDecodeError) as problem:
            raise UnreachableError(f"{self._where}: {self._file} cannot be read ({problem}); name the file that `upstream` includes") from problem

    def _current(self) -> str:
        """Why what nginx does may not be what the file says yet; empty when every worker that takes connections has begun after it was written."""
        since = time.time() - self._file.stat().st_mtime
        old = [pid for pid in self._workers() if _age(pid) > since - APART / 2]
        return f"{len(old)} workers of nginx still have the servers that stood before" if old else ""

    def _workers(self) -> list[int]:
        """The workers that take connections; those that are shutting down answer what they have, and take no new ones."""
        master = self._master()
        try:
            children = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        except OSError as problem:
            raise UnreachableError(f"{self._where}: nginx (process {master} of {self._pid}) does not run; start it, or mend `pid`") from problem
        return [pid for pid in children if "shutting down" not in _title(pid)]

    def _master(self) -> int:
        try:
            return int(self._pid.read_text())
        except (OSError, ValueError) as problem:
            raise UnreachableError(f"{self._where}: {self._pid} holds no process id ({problem}); is nginx up? mend `pid`") from problem

    # What is changed

    def _move(self, to: Json, expected: Json) -> None:
        with _disk.alone(self._file.parent, self._where):
            if not _shares.same(now := self._aim(), expected):
                raise AnswerError(
                    f"{self._where}: it points at {now} and no longer at {expected}: somebody else moved it, and it was left there", 409
                )
            before = self._read()
            _disk.written(self._file, self._text(to), self._where)
            if self._test and (wrong := self._tested()):
                _disk.written(self._file, before, self._where)
                raise AnswerError(f"{self._where}: nginx refuses the new servers, and the file was put back: {wrong}")
            self._reload()

    def _text(self, to: Json) -> str:
        shares = _shares.asked(to)
        if unknown := [version for version in shares if version not in self._versions]:
            raise CannotError(f"{self._where}: no server here is version {unknown[0]}; there is {', '.join(self._versions)}; mend `versions`")
        weights = _shares.weights(shares, {version: len(addresses) for version, addresses in self._versions.items()})
        rest = {server.address: server.rest for server in self._servers()}
        lines = (_line(address, weights[version], rest.get(address, ""), version) for version, all_ in self._versions.items() for address in all_)
        return "\n".join(("# Which version gets how much: written by Watchkeeper, and again at its next move.", *lines, ""))

    def _tested(self) -> str:
        left = remaining()
        try:
            done = subprocess.run(self._test, capture_output=True, text=True, timeout=left if left is not None else self._at.within.total_seconds())  # noqa: S603 - what the configuration names
        except subprocess.TimeoutExpired as problem:
            raise DeadlineError(f"{self._where}: {' '.join(self._test)} was not done in time") from problem
        except OSError as problem:
            return f"{self._test[0]} cannot be run ({problem.strerror})"
        return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:] or f"exit status {done.returncode}"

    def _reload(self) -> None:
        master = self._master()
        try:
            os.utime(self._file)  # now, so that no worker of a reload before ours counts as having read it
            time.sleep(APART)
            os.kill(master, signal.SIGHUP)
        except ProcessLookupError as problem:
            raise UnreachableError(f"{self._where}: nginx (process {master} of {self._pid}) does not run; start it, or mend `pid`") from problem
        except PermissionError as problem:
            raise DeniedError(f"{self._where}: this user may not signal nginx (process {master}); run the agent as its user, or as root") from problem


def _server(match: re.Match[str]) -> _Server:
    rest = match["rest"]
    weight = WEIGHT.search(rest)
    kept = " ".join(word for word in rest.split() if word not in ("down",) and not WEIGHT.fullmatch(word))
    return _Server(match["address"], 0 if "down" in rest.split() else int(weight[1]) if weight else 1, kept)


def _line(address: str, weight: int, rest: str, version: str) -> str:
    words = ["server", address, *([f"weight={weight}"] if weight else ["down"]), *rest.split()]
    return f"{' '.join(words)}; # version {version}"


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    return "shutting down"


def _age(pid: int) -> float:
    """Seconds since a process began; 0 when it is gone."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return float(Path("/proc/uptime").read_text().split()[0]) - ticks * TICK
    except (OSError, ValueError, IndexError):
        return 0.0
