"""HAProxy before several versions of one model, moved through its runtime API: by weights, by draining, or by an entry of a map."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic

from agent import Done, Json, Locator, Look, Pending, Swap, Try, adapter
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, DeniedError, UnreachableError
from agent.targets import _disk, _shapes, _shares
from agent.wire import remaining

OPTIONS = ("backend", "versions", "lever", "map", "key", "state_file")
LEVERS = ("weight", "drain", "map")
NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # what HAProxy lets a backend or server be called; a command takes nothing else from us
MOST = 8 * 2**20  # bytes of one answer
RUNNING = 2  # a server's operational state
FORGOTTEN = ": the traffic was moved, and a reload would undo it"


@dataclass(frozen=True, slots=True)
class _Server:
    """One line of `show servers state`."""

    name: str
    up: bool
    admitted: bool  # neither in maintenance nor draining
    weight: int


@adapter(role="router", schemes=("haproxy",))
class Haproxy:
    """`haproxy+unix:/run/haproxy/admin.sock` or `haproxy+tcp://127.0.0.1:9999`, a socket of level admin.

    `backend`: whose servers are the versions. `versions`: {version: server, or a list of them}; without it each server is a version of its own name.
    `lever`: weight (the default; the only one that splits traffic), drain, or map, for which `map` is the file's name as HAProxy knows it, `key` the
    entry, and `versions` {version: backend}. `state_file`: where to write the servers' state after each change, so that a reload keeps it; for a map,
    the map's own file is rewritten. HAProxy compares nothing before it sets: what stood is looked at right before, and again after.
    """

    can: frozenset[str]

    def __init__(self, at: Locator) -> None:
        self._at, self._where = at, f"{at.service}.{at.role}"
        given = _shapes.options(at, OPTIONS)
        if at.look is not None or at.act is not None:
            raise ConfigError(
                f"{self._where}: HAProxy's socket knows no credentials; who may open it is the `mode`, `user` and `level` of `stats socket`"
            )
        self._lever = str(given.get("lever", "map" if "map" in given else "weight"))
        if self._lever not in LEVERS:
            raise ConfigError(f"{self._where}: no lever '{self._lever}'; there is {', '.join(LEVERS)}")
        wanted = ("map", "key", "versions") if self._lever == "map" else ("backend",)
        if missing := [name for name in wanted if not given.get(name)]:
            raise ConfigError(f"{self._where}: the lever {self._lever} needs {' and '.join(f'`{name}`' for name in missing)}")
        self._backend, self._map, self._key = (str(given.get(name, "")) for name in ("backend", "map", "key"))
        self._state_file = Path(at.folder, str(given["state_file"])) if given.get("state_file") else None
        self._versions = _shares.versions(given.get("versions"), self._where)
        for name in filter(None, (self._backend, self._key, *(server for servers in self._versions.values() for server in servers))):
            _named(name, self._where)
        self.can = frozenset({"switch", "drain", *(("weights",) if self._lever == "weight" else ())})

    def served(self) -> Mapping[str, float]:
        """Share of new requests by version, of those servers that are up. AnswerError when none is."""
        if self._lever == "map":
            return {self._mapped(): 1.0}
        weights = _weights(self._servers(), up=True)
        if not (total := sum(weights.values())):
            raise AnswerError(f"{self._where}: no server of backend {self._backend} is up and has a weight: HAProxy answers 503")
        return {version: weight / total for version, weight in weights.items() if weight}

    @property
    def point(self) -> Swap:
        """Sends the traffic to `{"to": version}`, or splits it by `{"to": {version: share}}` where the lever is weight."""
        return Swap(self._aim, self._move, same=_shares.same)

    @property
    def drained(self) -> Drained:
        """Waits until no request is under way at `{"versions": [version, ...]}` any more; it changes nothing."""
        return Drained(self)

    def close(self) -> None:
        """Nothing to close: HAProxy ends the connection after each command."""

    def under_way(self, version: str) -> int:
        """Requests that the servers of a version are answering now."""
        if self._lever == "map":
            backend = self._versions[self._known(version)][0]
            return sum(int(row["scur"] or 0) for row in self._stat(backend) if row["svname"] == "BACKEND")
        servers = self._placed()[self._known(version)]
        return sum(int(row["scur"] or 0) for row in self._stat(self._backend) if row["svname"] in servers)

    # What stands

    def _aim(self) -> Json:
        """Where the weights send traffic, whether or not it is up: a version, or the shares of several."""
        if self._lever == "map":
            return self._mapped()
        return _shares.aim(_weights(self._servers(), up=False))

    def _mapped(self) -> str:
        for line in self._say(f"show map {self._map}").splitlines():
            entry, key, value = [*line.split(maxsplit=2), "", ""][:3]
            if key == self._key and entry.startswith("0x"):
                return next((version for version, (backend, *_) in self._versions.items() if backend == value.strip()), value.strip())
        raise AnswerError(f"{self._where}: the map {self._map} has no entry '{self._key}'; add `{self._key} BACKEND` to it, or mend `key`")

    def _servers(self) -> Mapping[str, Sequence[_Server]]:
        """Version -> its servers as they stand."""
        found = {server.name: server for server in self._state()}
        if not self._versions:
            return {name: (server,) for name, server in found.items()}
        if missing := [name for names in self._versions.values() for name in names if name not in found]:
            raise AnswerError(f"{self._where}: backend {self._backend} has no server '{missing[0]}'; there is {', '.join(found)}; mend `versions`")
        return {version: [found[name] for name in names] for version, names in self._versions.items()}

    def _placed(self) -> Mapping[str, Sequence[str]]:
        return {version: [server.name for server in servers] for version, servers in self._servers().items()}

    def _state(self) -> Iterator[_Server]:
        lines = self._say(f"show servers state {self._backend}").splitlines()
        header = next((line[1:].split() for line in lines if line.startswith("#")), [])
        for line in lines:
            row = dict(zip(header, line.split(), strict=False))
            if header and not line.startswith("#") and row.get("srv_name"):
                yield _Server(row["srv_name"], row["srv_op_state"] == str(RUNNING), row["srv_admin_state"] == "0", int(row["srv_uweight"]))
        if not header:
            raise AnswerError(f"{self._where}: what HAProxy says of backend {self._backend} cannot be read: {lines[:1]}")

    def _stat(self, backend: str) -> Iterator[Mapping[str, str]]:
        said = self._say(f"show stat {backend} -1 -1").lstrip("# ")
        return (row for row in csv.DictReader(said.splitlines()) if row.get("svname"))

    # What is changed

    def _move(self, to: Json, expected: Json) -> None:
        if not _shares.same(now := self._aim(), expected):
            raise _shapes.moved(self._where, expected, f"it points at {now}")
        said = self._say("; ".join(self._commands(to)), acting=True).strip()
        if said:
            raise AnswerError(f"{self._where}: HAProxy refused: {said.splitlines()[0]}")
        self._keep()

    def _commands(self, to: Json) -> Iterator[str]:
        """What takes traffic comes first and what gives it up last, so that there is never none."""
        if self._lever == "map":
            yield f"set map {self._map} {self._key} {self._versions[self._known(_one(to, self._lever))][0]}"
            return
        placed = self._placed()
        shares = _shares.asked(to)
        for version in shares:
            self._known(version, placed)
        if self._lever == "drain":
            _one(to, self._lever)
            for version, server in sorted(_flat(placed), key=lambda pair: pair[0] not in shares):
                yield f"set server {self._backend}/{server} state {'ready' if version in shares else 'drain'}"
            return
        weights = _shares.weights(shares, {version: len(servers) for version, servers in placed.items()})
        for version, server in sorted(_flat(placed), key=lambda pair: -weights[pair[0]]):
            if weights[version]:
                yield f"set server {self._backend}/{server} state ready"
            yield f"set server {self._backend}/{server} weight {weights[version]}"

    def _known(self, version: str, among: Mapping[str, Sequence[str]] | None = None) -> str:
        known = among if among is not None else self._versions or self._placed()
        if version not in known:
            raise CannotError(f"{self._where}: no server here is version {version}; there is {', '.join(known)}; mend `versions`")
        return version

    def _keep(self) -> None:
        """So that a reload finds it as it is: HAProxy itself writes down nothing."""
        if self._lever == "map":
            entries = (line.split(maxsplit=1)[1] for line in self._say(f"show map {self._map}").splitlines() if line.startswith("0x"))
            if Path(self._map).exists():
                _disk.written(Path(self._map), "\n".join(entries) + "\n", self._where, FORGOTTEN)
        elif self._state_file is not None:
            _disk.written(self._state_file, self._say("show servers state"), self._where, FORGOTTEN)

    def _say(self, command: str, acting: bool = False) -> str:
        said = _exchange(self._at, command)
        if "Permission denied" in said[:100]:
            raise DeniedError(f"{self._where}: HAProxy lets nobody change it through this socket; give the `stats socket` line `level admin`")
        if re.match(r"\s*(Unknown command|Can't find backend|No such|Unknown map|Missing)", said) and not acting:
            raise AnswerError(f"{self._where}: {command}: {said.strip().splitlines()[0]}")
        return said


@dataclass(frozen=True, slots=True)
class Drained:
    """The action that only looks whether a version has answered all it was asked."""

    router: Haproxy
    writes: bool = False
    repeatable: bool = True

    def before(self, args: Mapping[str, Json]) -> Json:
        return None

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        names = " and ".join(map(str, args["versions"]))
        left = sum(self.router.under_way(str(version)) for version in args["versions"])
        if left:
            return Pending(timedelta(milliseconds=50), f"{left} requests are still under way at version {names}")
        return Done({}, f"version {names} has answered all that it was asked")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        return None

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None


def _weights(servers: Mapping[str, Sequence[_Server]], up: bool) -> dict[str, int]:
    """Version -> the weight of its servers that take new requests, of those that are up, or of all."""
    return {version: sum(one.weight for one in some if one.admitted and (one.up or not up)) for version, some in servers.items()}


def _one(to: Json, lever: str) -> str:
    if isinstance(to, Mapping):
        raise CannotError(f"the lever {lever} sends all traffic to one version and cannot split it; use the lever weight")
    return str(to)


def _flat(placed: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    return ((version, server) for version, servers in placed.items() for server in servers)


def _named(name: str, where: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r:.80} cannot be a name in HAProxy; letters, digits and - _ . : are")
    return name


# The socket and the file


def _exchange(at: Locator, command: str) -> str:
    """One line to the socket and all that comes back, in the time that is left."""
    left = remaining()
    end = monotonic() + (at.within.total_seconds() if left is None else min(left, at.within.total_seconds()))
    place = at.address
    try:
        with _connected(place, end) as line:
            line.sendall(command.encode() + b"\n")
            return _heard(line, end, place)
    except TimeoutError as problem:
        raise DeadlineError(f"HAProxy's socket {place} did not answer in time; is it stuck, or is the machine?") from problem
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise UnreachableError(f"HAProxy's socket {place} cannot be used ({why}); is HAProxy up, with its `stats socket` there?") from problem


def _connected(place: str, end: float) -> socket.socket:
    kind, _, rest = place.partition(":")
    if kind == "unix":
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(_until(end))
        try:
            line.connect(rest)
        except BaseException:
            line.close()
            raise
        return line
    host, _, port = rest.strip("/").rpartition(":")
    if kind != "tcp" or not port.isdecimal():
        raise ConfigError(f"{place}: write haproxy+unix:/path/of/the.sock or haproxy+tcp://host:port")
    return socket.create_connection((host.strip("[]"), int(port)), _until(end))


def _heard(line: socket.socket, end: float, place: str) -> str:
    heard = bytearray()
    while True:
        line.settimeout(_until(end))
        part = line.recv(2**16)
        if not part:
            return heard.decode("utf-8", "replace")
        heard += part
        if len(heard) > MOST:
            raise AnswerError(f"HAProxy's socket {place} said more than {MOST // 2**20} MiB")


def _until(end: float) -> float:
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
