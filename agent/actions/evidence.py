"""Writing down what is known, so that it is still known when the incident is over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from agent import bundle
from agent.actions.looks import Looking
from agent.model import Absent, Done, Json, Look, Try


class Bundle(Looking):
    """`incident.bundle {to}`: one file in that folder that holds what is known of the service and its incident; written whole or not at all."""

    __slots__ = ()
    takes: ClassVar[frozenset[str]] = frozenset({"to"})
    gives: ClassVar[frozenset[str]] = frozenset({"file", "sha256"})

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        file = self._file(args, t)
        if not file.exists():
            return Absent(f"{file} was not written yet")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        return Done({"file": str(file), "sha256": found}, f"{file}, sha256 {found}")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        bundle.write(self.world, self.service, t.run, self._file(args, t))

    def _file(self, args: Mapping[str, Json], t: Try) -> Path:
        at = self.world.config.path
        return (at if at.is_dir() else at.parent) / str(args["to"]) / f"{self.service.name}-run-{t.run}.zip"
