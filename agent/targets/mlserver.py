"""Which version of a model MLServer answers with: moved by the settings files in its model repository, and by having it load them."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cmp_to_key
from pathlib import Path
from urllib.parse import quote

from agent import Json, Locator, adapter
from agent.errors import AnswerError, CannotError, ConfigError, DataError, DeniedError
from agent.targets import _disk, _shapes
from agent.wire import Wire

HOLE = "{version}"
NUMBER = re.compile("[0-9]{1,18}")
READY, UNKNOWN, UNREADY = 200, 404, 400  # what MLServer says of a version that it does not hold, and of one that it holds and has not loaded yet


@adapter(role="router", schemes=("mlserver",))
class MLServer:
    """`mlserver+http://host:port/MODEL`, with `settings: {from: settings/{version}.json, to: repository/MODEL/model-settings.json}` on this machine.

    `from`: where the settings of each version are kept. `to`: where MLServer reads them; with {version} in it too, several are loaded and the
    highest answers: a switch takes away those above the one it points at, and leaves those below. MLServer reads the files when it is told to
    load, and compares nothing: what stood is looked at right before.
    """

    can: frozenset[str] = frozenset({"switch"})

    def __init__(self, at: Locator) -> None:
        self._where, given = f"{at.service}.{at.role}", _shapes.options(at, ("settings",)).get("settings")
        if not isinstance(given, Mapping) or set(given) != {"from", "to"} or HOLE not in str(given["from"]):
            wanted = "{from: settings/{version}.json, to: repository/MODEL/model-settings.json}"
            raise ConfigError(f"{self._where}.settings: write {wanted}, not {given!r:.120}")
        self._from, self._to = (str(Path(at.folder, str(given[end]))) for end in ("from", "to"))
        prefix, self._model = _shapes.model(at, "v2", "models")
        self._root, self._wire = f"{prefix}/v2", Wire(at)
        self._path = f"{self._root}/models/{self._model}"

    def served(self) -> Mapping[str, float]:
        """All requests that name no version go to one. AnswerError when no version that is known here is loaded."""
        return {self._version(): 1.0}

    @property
    def point(self) -> _shapes.Reloaded:
        """Has `{"to": version}` loaded, and nothing above it; done when it is ready. A load that fails leaves what was served, and the files as they
        were."""
        return _shapes.Reloaded(self._version, self._move, current=self._loading)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    # What stands

    def _version(self) -> str:
        """The only version that the metadata states, or else the highest that is loaded. The repository's index is not asked: it reads the files."""
        stated = self._stated()
        if len(stated) == 1:
            return stated[0]
        known = sorted({*_kept(self._from), *self._live()}, key=_rank, reverse=True)
        for version in known:
            if self._holds(version):
                return version
        raise AnswerError(f"{self._where}: MLServer holds no version of {self._model} that is known here ({', '.join(known) or 'none is'})")

    def _stated(self) -> Sequence[str]:
        """What `versions` in the settings of the version that answers says; MLServer states nothing of its own."""
        path = self._path
        try:
            body = self._wire.get(path).json()
        except AnswerError as problem:
            if problem.status == UNKNOWN:
                return ()
            raise
        stated = body.get("versions") or () if isinstance(body, Mapping) else None
        if not isinstance(stated, (list, tuple)):
            raise AnswerError(f"{path}: the metadata has no list of versions: {body!r:.120}")
        return [version for one in stated if (version := _shapes.version(one, path))]

    def _holds(self, version: str) -> bool:
        """Whether it would answer with it, if need be that it is not loaded yet."""
        return self._ready(f"/versions/{quote(version, safe='')}") != UNKNOWN

    def _loading(self) -> str:
        return "" if self._ready() == READY else f"MLServer is not ready to answer with {self._version()} yet"

    def _ready(self, version: str = "") -> int:
        try:
            return self._wire.get(f"{self._path}{version}/ready").status
        except AnswerError as problem:
            if problem.status not in (UNKNOWN, UNREADY):
                raise
            return problem.status

    def _live(self) -> Mapping[str, Path]:
        """The settings that MLServer would read now, by the version they name."""
        if HOLE in self._to:
            return _kept(self._to)
        path = Path(self._to)
        return {said: path} if (said := _said(_disk.read(path, self._where) or b"", self._model)) else {}

    # What is changed

    def _move(self, to: Json, expected: Json) -> None:
        with _disk.alone(Path(self._from.split(HOLE)[0] + "x").parent, self._where):
            if (found := self._version()) != expected:
                raise _shapes.moved(self._where, expected, f"it is {found}")
            wanted = self._wanted(str(to))
            before = {path: _disk.read(path, self._where) for path in wanted}
            try:
                self._write(wanted)
                self._wire.post(f"{self._root}/repository/models/{self._model}/load", acting=True)
            except (AnswerError, DeniedError, DataError) as problem:
                self._write(before)
                if not isinstance(problem, AnswerError):
                    raise
                told = f"{self._where}: version {to} was not loaded, {expected} was left, and the settings were put back: {problem}"
                raise AnswerError(told, problem.status) from problem

    def _wanted(self, to: str) -> Mapping[Path, bytes | None]:
        """What must stand at each place that changes; None for nothing."""
        kept = _kept(self._from)
        if to not in kept:
            raise CannotError(f"{self._where}: no settings of version {to} are kept as {self._from}; there is {', '.join(sorted(kept, key=_rank))}")
        text = _disk.read(kept[to], self._where)
        if (said := _said(text or b"", self._model)) != to:
            raise CannotError(f"{self._where}: {kept[to]} are no settings of version {to} of {self._model}, but of {said or 'none'}; mend the file")
        above = [path for version, path in self._live().items() if HOLE in self._to and _rank(version) > _rank(to)]
        self._losing_nothing((Path(self._to.replace(HOLE, to)), *above), kept.values())
        return {Path(self._to.replace(HOLE, to)): text, **dict.fromkeys(above)}

    def _losing_nothing(self, changing: Iterable[Path], kept: Iterable[Path]) -> None:
        known = {None, *(_disk.read(path, self._where) for path in kept)}
        if lost := next((path for path in changing if _disk.read(path, self._where) not in known), None):
            raise CannotError(f"{self._where}: {lost} is like no file of {self._from}, and would be lost; keep a copy there first")

    def _write(self, wanted: Mapping[Path, bytes | None]) -> None:
        for path, content in wanted.items():
            _disk.written(path, content, self._where)


def _kept(template: str) -> Mapping[str, Path]:
    """The files that a path with {version} in it names, by version."""
    parts = template.split(HOLE)
    shape = re.compile(re.escape(parts[0]) + "([^/]+)" + r"\1".join(map(re.escape, parts[1:])))
    found = ((shape.fullmatch(name), name) for name in glob.glob("*".join(map(glob.escape, parts))))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return {match[1]: Path(name) for match, name in found if match}


def _said(settings: bytes, model: str) -> str:
    """The version that settings name, as `parameters: {version}` or else as the first of `versions`; "" when they name none, or another model."""
    try:
        body = json.loads(settings)
        named = body.get("parameters", {}).get("version") or next(iter(body.get("versions", ())), "")
        return str(named) if body.get("name", model) == model else ""
    except (ValueError, AttributeError, TypeError):
        return ""


@cmp_to_key
def _rank(one: str, other: str) -> int:
    """MLServer's order, in which the last answers: two whole numbers by their value, anything else as text."""
    if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
        return int(one) - int(other)
    return (one > other) - (one < other)
