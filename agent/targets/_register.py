"""The verb with which a registry takes a new version: all of it at once or none of it, and never twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent import Absent, Done, Failed, Json, Look, ModelVersion, Try

Write = Callable[[str, Path, Mapping[str, str], Mapping[str, Json]], None]
SEALED = "golden.json"  # which a registry writes in its own way


@dataclass(frozen=True, slots=True)
class Register:
    """`registry.register {version, folder, files, lineage}`: files of a folder by their sha256, under a name that no version has yet.

    Done when the registry has that version with those files. A version that is registered is used by nobody yet, and stays: the record of what was
    made is kept, whatever becomes of it.
    """

    find: Callable[[str], ModelVersion | None]
    write: Write
    writes: bool = True
    repeatable: bool = True
    adds: bool = True
    takes: frozenset[str] = frozenset({"version", "folder", "files", "lineage"})
    gives: frozenset[str] = frozenset({"version", "digest"})

    def before(self, args: Mapping[str, Json]) -> Json:
        found = self.find(args["version"])
        return None if found is None else found.digest

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        found = self.find(args["version"])
        if found is None:
            return Absent(f"version {args['version']} is not registered")
        files = {name: digest for name, digest in args["files"].items() if name != SEALED}
        if t.before is not None or any(found.files.get(name) != digest for name, digest in files.items()):
            return Failed(f"version {args['version']} is registered already, and is another model; nothing was written over")
        return Done({"version": found.version, "digest": found.digest}, f"version {found.version} is registered, digest {found.digest[:12]}")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        self.write(args["version"], Path(args["folder"]), args["files"], args.get("lineage") or {})

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None
