"""What a version's lineage says of how it was made, and what its files would do."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent import Json, ModelVersion, Registry, Router, Server, Verdict, fail, nodata, served

UNTOLD = "nobody says which version is served; have the server put model_version in its answers, or bind `router:`"
HEAD = 4096  # bytes of a file, or of a zip's member, that are looked at
OPCODES = 8  # that no other file begins with by chance


def registered(server: Server, registry: Registry, router: Router | None) -> ModelVersion | Verdict:
    """The served version as the registry has it, or what to say where it has none."""
    name = served(server, registry, router)
    if name is None:
        return nodata(UNTOLD)
    found = registry.version(name)
    return found if found is not None else fail(f"version {name} is served and was never registered, so that nothing is known of how it was made")


def commit(version: ModelVersion) -> str | None:
    """The commit of what trained it: `commit`, as MLflow and trainers call it too, or `code`."""
    found = version.lineage.get("commit") or version.lineage.get("code") or version.lineage.get("mlflow.source.git.commit")
    return found if isinstance(found, str) and found else None


def data(version: ModelVersion) -> Mapping[str, str]:
    """Name -> digest of what it was trained on: {"train.csv": digest}, {"train.csv": {"sha256": digest}}, or {"name": ..., "sha256": ...} for one."""
    found = version.lineage.get("data")
    if not isinstance(found, Mapping):
        return {}
    if isinstance(found.get("sha256"), str):
        return {str(found.get("name", "data")): found["sha256"]}
    digests = {str(name): one.get("sha256") or one.get("md5") if isinstance(one, Mapping) else one for name, one in found.items()}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str) and digest}


def tried(search: Json) -> Sequence[Mapping[str, Json]]:
    """The runs of a search that have parameters and a number."""
    runs = search.get("runs") if isinstance(search, Mapping) else None
    return [one for one in runs if _run(one)] if isinstance(runs, list) else []


def _run(one: Json) -> bool:
    number = one.get("metric") if isinstance(one, Mapping) else None
    return isinstance(number, int | float) and not isinstance(number, bool) and isinstance(one.get("parameters"), Mapping)


def runs_code(path: Path) -> str:
    """Why loading this file could run what somebody wrote into it; empty where its format holds numbers only. Bytes count, not names."""
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    if head[:2] == b"PK":
        return _zipped(path)
    return _pickled(head)


def _pickled(head: bytes) -> str:
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or _old_pickle(head):
        return "is a pickle, which runs code when it is loaded"
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:4] == b"\xfd7zX" or (head[:1] == b"x" and head[1:2] in b"\x01\x5e\x9c\xda"):
        return "is compressed, as joblib writes pickles, and what is in it is not known"
    return ""


def _old_pickle(head: bytes) -> bool:
    """The first pickles have no mark: they are known by reading as their opcodes, as far as the bytes go."""
    told = 0
    try:
        for told, (code, _, _) in enumerate(pickletools.genops(head), 1):
            if code.name == "STOP":
                return told > 1
    except (ValueError, IndexError, UnicodeDecodeError):
        return told > OPCODES
    return False


def _zipped(path: Path) -> str:
    """A zip, as torch.save and Keras write them: what each of its members begins with."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    if harm := _pickled(stream.read(HEAD)):
                        return f"holds {member.filename}, which {harm}"
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as problem:
        return f"is a zip that cannot be read ({problem})"
    return ""
